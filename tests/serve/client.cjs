// openai-node against the server: plain, streamed, tools, and an error. Arguments: folder of node_modules, base URL.
const { createRequire } = require("node:module");
const assert = require("node:assert");
const OpenAI = createRequire(process.argv[2] + "/")("openai");
const client = new OpenAI({ baseURL: process.argv[3], apiKey: "client-key", maxRetries: 0 });
const ask = (content, more = {}) => ({ model: "routellm", messages: [{ role: "user", content }], ...more });

(async () => {
  const { data, response } = await client.chat.completions.create(ask("p=0.9 hard")).withResponse();
  assert.equal(data.choices[0].message.content, "answer of big");
  assert.equal(response.headers.get("x-routellm-model"), "strong");

  let text = "";
  for await (const chunk of await client.chat.completions.create(ask("p=0.1 easy", { stream: true }))) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, "answer of small");

  const tools = [{ type: "function", function: { name: "add", parameters: { type: "object", properties: {} } } }];
  await client.chat.completions.create(ask("p=0.1 easy", { tools }));
  assert.equal((await client.responses.create({ model: "routellm", input: "p=0.9" })).output_text, "answer of big");
  await assert.rejects(client.chat.completions.create(ask("a", { model: "gpt-9" })), { status: 404 });

  const gone = new AbortController();
  const stream = await client.chat.completions.create(ask("p=0.1", { stream: true }), { signal: gone.signal });
  for await (const _ of stream) gone.abort();
  console.log("ok");
})();
