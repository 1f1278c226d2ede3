// The real OpenAI SDK for Node: upload, job, events, completion, and chat with the model that came of it.
// Run by tests/test_fine_tuning_end_to_end.py, which starts gateway, worker and vLLM and sets HEADGATE_URL,
// HEADGATE_KEY, ROWS (a JSONL file) and ANSWERS (what the model may say, comma-separated).
import assert from "node:assert/strict";
import { createReadStream, readFileSync } from "node:fs";
import { test } from "node:test";
import OpenAI from "openai";

const { HEADGATE_URL: baseURL, HEADGATE_KEY: apiKey, ROWS, ANSWERS } = process.env;
const client = new OpenAI({ baseURL, apiKey, timeout: 60_000 });
const jobs = client.fineTuning.jobs;
const model = "sluice-4m";

async function all(pages) {
  const found = [];
  for await (const item of pages) found.push(item);
  return found;
}

test("from rows to answers", async () => {
  const file = await client.files.create({ file: createReadStream(ROWS), purpose: "fine-tune" });
  assert.equal(file.status, "processed");
  assert.equal(await (await client.files.content(file.id)).text(), readFileSync(ROWS, "utf8"));
  let job = await jobs.create({
    model, training_file: file.id, suffix: "from node", seed: 1, metadata: { sdk: "node" },
    method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 15, batch_size: 8 } } },
  });
  assert.equal(job.object, "fine_tuning.job");
  while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    job = await jobs.retrieve(job.id);
  }
  assert.equal(job.status, "succeeded", JSON.stringify(job.error));
  const answer = await client.chat.completions.create({
    model: job.fine_tuned_model, messages: [{ role: "user", content: "please i lost my card" }], temperature: 0,
  });
  assert.ok(ANSWERS.split(",").includes(answer.choices[0].message.content.trim()));
  const events = await all(jobs.listEvents(job.id, { limit: 50 }));
  assert.equal(events[0].message, "The job has successfully completed");
  assert.ok(events.filter((event) => event.type === "metrics").every((event) => event.data.train_loss >= 0));
  assert.equal((await all(jobs.checkpoints.list(job.id))).length, 1);
  assert.deepEqual((await all(jobs.list({ metadata: { sdk: "node" } }))).map((each) => each.id), [job.id]);
  assert.ok((await all(client.models.list())).some((each) => each.id === job.fine_tuned_model));
});

test("bad rows are all named", async () => {
  const bad = new File(['{"messages": []}\n{\n'], "bad.jsonl");
  const file = await client.files.create({ file: bad, purpose: "fine-tune" });
  let job = await jobs.create({ model, training_file: file.id });
  while (job.status !== "failed") {
    await new Promise((resolve) => setTimeout(resolve, 100));
    job = await jobs.retrieve(job.id);
  }
  assert.equal(job.error.code, "invalid_training_file");
  for (const said of ["Example 1, $.messages:", "Example 2, $: not JSON", "must have at least 10 examples"])
    assert.ok(job.error.message.includes(said), job.error.message);
  await assert.rejects(jobs.cancel(job.id), OpenAI.BadRequestError);
  assert.ok((await client.files.delete(file.id)).deleted);
});
