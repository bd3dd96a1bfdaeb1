"""The llama.cpp runtime: one wheel with the Python binding, the libraries and the programs, from one sdist.

Owns everything between the hash-verified llama-cpp-python sdist and the finished wheel in the builder's cache. It must
never use a network, or take flags from the builder's environment. It must never decide trust: the wheel is an input of
the bundle like any other, with its digest in the contents.

Rules:
- cmake and ninja come from hash-verified wheels, the compiler is the machine's gcc and is recorded;
- the same sdist, flags, tools and compiler give the same bytes, in any folder, for any user, at any time;
- each library exists once, under one name, without a symlink, and finds the others by `$ORIGIN` only;
- nothing depends on a library that a bare Debian does not have: no OpenMP, no OpenSSL, no curl;
- llama.cpp is built without the ability to start other programs.
"""
