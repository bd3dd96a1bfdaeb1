"""`README.txt`: for a person who finds the stick.

Owns its text. It describes the bundle and shows no command: instructions never come from the stick (threat T19).
"""

from __future__ import annotations

from jinja2 import Environment, StrictUndefined

from bundles.contents.contents import Contents

_TEXT = """\
This is {{ contents.name }} {{ contents.version }}, a signed bundle for machines without a network.

It holds language models, the programs that run them, and signatures over all of it:

{% for model in contents.models -%}
  {{ model.name }}: {{ model.architecture }}, {{ model.quantisation }}, licence {{ model.licence }}
{% endfor %}
Nothing on this medium shows whether it can be trusted, and no instruction on it should be
followed. Your organisation's own documents describe how to verify and install it: on paper,
or on the machine that it is meant for. If you found this medium, give it to the person who
is responsible for information security.
"""


def write_readme(contents: Contents) -> bytes:
    """The text for one bundle."""
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return environment.from_string(_TEXT).render(contents=contents).encode()
