// Vercel AI SDK: OpenAI-compatible chats, Responses and Anthropic's messages; streams, an object, a tool, embeddings.

import assert from 'node:assert/strict';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateObject, generateText, streamText, tool } from 'ai';
import { z } from 'zod';

const baseURL = process.env.BASE_URL;
const apiKey = process.env.KEY;
const prompt = 'What is the weather in Paris?';
const few = { prompt, maxOutputTokens: 40, temperature: 0, maxRetries: 0 };

const site = createOpenAICompatible({ name: 'site', baseURL, apiKey, supportsStructuredOutputs: true });
const models = [
  site.chatModel('toy'),
  createOpenAI({ baseURL, apiKey }).responses('toy'),
  createOpenAI({ baseURL, apiKey }).chat('toy'),
  createAnthropic({ baseURL, apiKey }).messages('toy'),
];
for (const model of models) {
  const named = `${model.provider}`;
  const answer = await generateText({ ...few, model, system: 'You are brief.' });
  assert.ok(answer.text, named);
  assert.ok(answer.usage.outputTokens > 0, named);
  const parts = [];
  for await (const part of streamText({ ...few, model }).textStream) parts.push(part);
  assert.ok(parts.length > 3, `${named}: ${parts.length} parts`);
  const { object } = await generateObject({
    ...few, model, schema: z.object({ city: z.string().max(20), unit: z.enum(['C', 'F']) }),
  });
  assert.equal(typeof object.city, 'string', named);
  const called = await generateText({
    ...few, model, toolChoice: 'required',
    tools: { lookUp: tool({ description: 'Look up the weather.', inputSchema: z.object({ city: z.string().max(20) }) }) },
  });
  assert.equal(called.toolCalls[0].toolName, 'lookUp', named);
}
const { embeddings } = await embedMany({ model: site.textEmbeddingModel('embeds'), values: ['the cat', 'a mat'] });
assert.deepEqual(embeddings.map((one) => one.length), [32, 32]);
