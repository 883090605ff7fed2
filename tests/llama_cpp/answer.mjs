// node answer.mjs MODEL.gguf PROMPTS.json: the greedy answers of llama.cpp, at most 24 token ids each, as JSON.
// A prompt that is a list of ids is not answered: the logits of the token that would follow it are given.
// One thread: two of them wait for each other in a busy loop, which is slow where the cores are shared.
import {readFileSync} from "node:fs";
import {getLlama} from "node-llama-cpp";

const [file, prompts] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", skipDownload: true});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: 512, threads: 1});
const sequence = context.getSequence();
const answers = [];
for (const prompt of JSON.parse(readFileSync(prompts, "utf8"))) {
  await sequence.clearHistory();
  if (Array.isArray(prompt)) {
    const asked = [...prompt.slice(0, -1), [prompt.at(-1), {generateNext: {logits: true}}]];
    answers.push({logits: [...(await sequence.controlledEvaluate(asked)).at(-1).next.logits]});
    continue;
  }
  const question = model.tokenize(prompt, true);
  const answer = [];
  for await (const token of sequence.evaluate(question, {temperature: 0, yieldEogToken: true})) {
    answer.push(token);
    if (model.isEogToken(token) || answer.length >= 24) break;
  }
  answers.push({question, answer});
}
console.log(JSON.stringify(answers));
process.exit(0);
