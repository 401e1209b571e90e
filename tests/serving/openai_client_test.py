#!/usr/bin/env python3
"""OpenAI's own client against a server with a routed pool.

usage: openai_client_test.py URL    (tests/serving/run.sh starts the server: 4 running, 8 waiting, 300 tokens at most)
"""
import asyncio
import base64
import json
import struct
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request

import openai

URL = ""
HELLO = [{"role": "user", "content": "Say hello."}]


def bare_post(path: str, body: dict):
    """Status, headers and JSON of an answer, without the client."""
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.status, reply.headers, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.load(error)


def busy() -> int:
    with urllib.request.urlopen(URL + "/ready", timeout=60) as reply:
        return json.load(reply)["running"]


def wait_until_idle(test: unittest.TestCase) -> None:
    for _ in range(300):
        if busy() == 0:
            return
        time.sleep(0.1)
    test.fail("the server goes on with what nobody reads")


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0, timeout=300)
        self.models = [model.id for model in self.client.models.list()]
        self.base = self.models[0]
        self.router = "skein/phatgoose"

    def chat(self, **more):
        arguments = {"model": self.base, "messages": HELLO, "max_tokens": 8, "temperature": 0, **more}
        return self.client.chat.completions.create(**arguments)

    def complete(self, **more):
        arguments = {"model": self.base, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0, **more}
        return self.client.completions.create(**arguments)

    def test_lists_models(self):
        self.assertIn(self.router, self.models)
        self.assertEqual(self.client.models.retrieve(self.router).id, self.router)

    def test_chats(self):
        for model in self.models:
            answer = self.chat(model=model)
            self.assertEqual(answer.choices[0].message.role, "assistant")
            self.assertTrue(answer.choices[0].message.content)
            self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_streams_what_it_answers(self):
        whole = self.chat(max_tokens=24).choices[0]
        text, reason, usage = "", None, None
        for chunk in self.chat(max_tokens=24, stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
            usage = chunk.usage or usage
        self.assertEqual(text, whole.message.content)
        self.assertEqual(reason, whole.finish_reason)
        self.assertGreater(usage.completion_tokens, 0)

    def test_streams_completions_of_several_prompts(self):
        prompts = ["One, two,", "Red, green,"]
        whole = self.complete(prompt=prompts, n=2)
        texts = [""] * 4
        for chunk in self.complete(prompt=prompts, n=2, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        self.assertEqual(texts, [choice.text for choice in whole.choices])

    def test_logprobs_of_chats(self):
        content = self.chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
        for token in content:
            self.assertLessEqual(token.logprob, 0)
            self.assertEqual(len(token.top_logprobs), 3)
            # Greedy: the token is the likeliest.
            self.assertAlmostEqual(token.logprob, token.top_logprobs[0].logprob, places=5)
            self.assertEqual(bytes(token.bytes).decode("utf-8", "replace"), token.token)

    def test_logprobs_and_echo_of_completions(self):
        answer = self.complete(echo=True, logprobs=2, max_tokens=4).choices[0]
        logprobs = answer.logprobs
        self.assertTrue(answer.text.startswith("The capital of France is"))
        self.assertIsNone(logprobs.token_logprobs[0])
        self.assertTrue(all(value <= 0 for value in logprobs.token_logprobs[1:]))
        self.assertEqual("".join(logprobs.tokens), answer.text)
        self.assertEqual([answer.text[offset] for offset in logprobs.text_offset], [token[0] for token in logprobs.tokens])
        scored = self.complete(echo=True, logprobs=0, max_tokens=0).choices[0]
        self.assertEqual(scored.text, "The capital of France is")
        # The same prompt scores alike with and without an answer after it (rounding of bf16 aside).
        for a, b in zip(scored.logprobs.token_logprobs[1:], logprobs.token_logprobs[1:]):
            self.assertAlmostEqual(a, b, delta=0.1)

    def test_n_answers_differ_and_seeds_repeat(self):
        first = [c.message.content for c in self.chat(n=3, temperature=1.5, seed=7, max_tokens=16).choices]
        second = [c.message.content for c in self.chat(n=3, temperature=1.5, seed=7, max_tokens=16).choices]
        self.assertEqual(first, second)
        self.assertGreater(len(set(first)), 1)

    def test_stops_before_a_text(self):
        whole = self.complete(prompt="1, 2, 3, 4,", max_tokens=20).choices[0].text
        stop = whole[4:7]
        answer = self.complete(prompt="1, 2, 3, 4,", max_tokens=20, stop=[stop, "never"]).choices[0]
        self.assertEqual(answer.text, whole[: whole.index(stop)])
        self.assertEqual(answer.finish_reason, "stop")

    def test_penalties_change_the_text(self):
        plain = self.complete(prompt="a a a a a a", max_tokens=16).choices[0].text
        penalised = self.complete(prompt="a a a a a a", max_tokens=16, frequency_penalty=2, presence_penalty=2).choices[0].text
        self.assertNotEqual(plain, penalised)

    def test_biases_forbid_tokens(self):
        ask = {"model": self.router, "max_tokens": 2, "logprobs": 0, "extra_body": {"trace": True, "ignore_eos": True}}
        plain = self.complete(**ask).choices[0]
        first = next(token for token in plain.trace["tokens"] if token["part"] == "answer")
        self.assertEqual(plain.logprobs.tokens[0], first["text"])
        other = self.complete(**ask, logit_bias={str(first["id"]): -100}).choices[0]
        self.assertNotEqual(other.logprobs.tokens[0], first["text"])

    def test_routes_and_traces(self):
        answer = self.chat(model=self.router, extra_body={"trace": True})
        trace = answer.choices[0].trace
        answers = [token for token in trace["tokens"] if token["part"] == "answer"]
        self.assertGreater(len(answers), 0)
        self.assertGreater(len(trace["experts"]), 1)
        for token in answers:
            slots = len(trace["slot_sets"][token["slot_set"]])
            self.assertEqual(len(token["weights"]), slots * token["k"])
            self.assertAlmostEqual(sum(token["weights"]), slots, delta=0.01 * slots)
        off = trace["experts"][0]
        without = self.chat(model=self.router, extra_body={"trace": True, "router": {"without": [off]}})
        for token in without.choices[0].trace["tokens"]:
            self.assertNotIn(0, [e for e, w in zip(token["experts"], token["weights"]) if w > 0])

    def test_embeds(self):
        floats = self.client.embeddings.create(model=self.base, input=["a text", "another"], encoding_format="float")
        packed = self.client.embeddings.create(model=self.base, input=["a text", "another"])  # base64 by default
        for a, b in zip(floats.data, packed.data):
            for x, y in zip(a.embedding, b.embedding):
                self.assertAlmostEqual(x, y, places=4)
        _, _, raw = bare_post("/v1/embeddings", {"input": "a text", "encoding_format": "base64"})
        values = struct.unpack(f"<{len(floats.data[0].embedding)}f", base64.b64decode(raw["data"][0]["embedding"]))
        self.assertAlmostEqual(values[0], floats.data[0].embedding[0], delta=0.05)

    def test_errors_are_those_of_the_client(self):
        with self.assertRaises(openai.NotFoundError):
            self.chat(model="nobody")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(temperature=3)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError):
            self.chat(max_tokens=301)
        with self.assertRaises(openai.BadRequestError):
            self.complete(prompt="a " * 20000)
        with self.assertRaises(openai.BadRequestError):
            self.chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}])

    def test_closing_a_stream_ends_its_work(self):
        stream = self.chat(stream=True, max_tokens=300, extra_body={"ignore_eos": True})
        next(iter(stream))
        self.assertGreater(busy(), 0)
        stream.close()
        wait_until_idle(self)

    def test_abandoning_an_answer_ends_its_work(self):
        with self.assertRaises(openai.APITimeoutError):
            self.client.with_options(timeout=1.0).chat.completions.create(
                model=self.base, messages=HELLO, max_tokens=300, extra_body={"ignore_eos": True})
        wait_until_idle(self)

    def test_full_queues_say_when_to_come_back(self):
        statuses, retries = [], []

        def ask():
            status, headers, _ = bare_post("/v1/completions", {"prompt": "x", "max_tokens": 30, "ignore_eos": True})
            statuses.append(status)
            if status == 429:
                retries.append(int(headers["Retry-After"]))

        threads = [threading.Thread(target=ask) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(set(statuses), {200, 429})
        self.assertGreaterEqual(statuses.count(200), 8)
        self.assertTrue(all(seconds >= 1 for seconds in retries))

    def test_asynchronous_client(self):
        async def both():
            client = openai.AsyncOpenAI(base_url=URL + "/v1", api_key="none", timeout=300)
            return await asyncio.gather(*[
                client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, temperature=0)
                for model in (self.base, self.router, self.base)])

        answers = asyncio.run(both())
        self.assertEqual(answers[0].choices[0].message.content, answers[2].choices[0].message.content)


if __name__ == "__main__":
    URL = sys.argv.pop(1)
    unittest.main(verbosity=2)
