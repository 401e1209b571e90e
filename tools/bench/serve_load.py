#!/usr/bin/env python3
"""Load on an OpenAI-compatible server: throughput, time to first token, time between tokens, refusals. Standard library
only, so that it runs beside any server.

usage: serve_load.py --url http://127.0.0.1:8000 --model skein --streams 16 --requests 64
       serve_load.py --url ... --model ... --rate 2 --seconds 60          Poisson arrivals at 2 requests a second

Prints one JSON object: completed, refused (429), failed, generated_tokens_per_s, and p50, p95, p99 in seconds of first
token (ttft_s), of the gaps between tokens (gap_s) and of whole requests (request_s).
"""
import argparse
import asyncio
import json
import random
import time
import urllib.parse


def quantiles(values):
    ordered = sorted(values)
    if not ordered:
        return None
    return {f"p{q}": round(ordered[min(len(ordered) - 1, int(q / 100 * len(ordered)))], 5) for q in (50, 95, 99)}


class Load:
    def __init__(self, args):
        self.args = args
        self.url = urllib.parse.urlsplit(args.url)
        self.words = random.Random(args.seed)
        self.ttft, self.gaps, self.times = [], [], []
        self.completed = self.refused = self.failed = self.tokens = 0
        self.reasons = {}

    def prompt(self):
        # Words of one token or two, so that no two prompts share more than chance; the shared head is for prefix reuse.
        head = "You answer briefly. " * self.args.shared_head
        return head + " ".join(self.words.choice(WORDS) for _ in range(self.args.prompt_words))

    async def request(self):
        body = json.dumps({"model": self.args.model, "prompt": self.prompt(), "max_tokens": self.args.new_tokens,
                           "temperature": self.args.temperature, "seed": self.words.randrange(1 << 30), "stream": True,
                           "ignore_eos": True}).encode()
        headers = (f"POST {self.args.path} HTTP/1.1\r\nHost: {self.url.netloc}\r\nContent-Type: application/json\r\n"
                   f"Content-Length: {len(body)}\r\nConnection: close\r\n")
        if self.args.api_key:
            headers += f"Authorization: Bearer {self.args.api_key}\r\n"
        started = last = time.perf_counter()
        writer = None
        try:
            reader, writer = await asyncio.open_connection(self.url.hostname, self.url.port or 80)
            writer.write(headers.encode() + b"\r\n" + body)
            await writer.drain()
            status = int((await reader.readline()).split()[1])
            if status != 200:
                self.refused += status == 429
                self.failed += status != 429
                if status != 429:
                    self.note(f"status {status}")
                return
            count = 0
            async for line in reader:
                at = line.find(b"data: ")  # also behind a chunk's length
                if at < 0:
                    continue
                data = line[at + 6:].strip()
                if data == b"[DONE]":
                    break
                event = json.loads(data)
                if "error" in event:
                    raise RuntimeError(event["error"])
                if not event.get("choices") or not event["choices"][0].get("text"):
                    continue
                now = time.perf_counter()
                (self.gaps if count else self.ttft).append(now - (last if count else started))
                last = now
                count += 1
            self.tokens += self.args.new_tokens if count else 0
            self.completed += 1
            self.times.append(time.perf_counter() - started)
        except Exception as error:  # a load generator goes on
            self.failed += 1
            self.note(f"{type(error).__name__}: {error}")
        finally:
            if writer is not None:
                writer.close()

    def note(self, reason):
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    async def closed(self):
        left = self.args.requests

        async def stream():
            nonlocal left
            while left > 0:
                left -= 1
                await self.request()

        await asyncio.gather(*(stream() for _ in range(self.args.streams)))

    async def open(self):
        tasks, end = [], time.perf_counter() + self.args.seconds
        while time.perf_counter() < end:
            await asyncio.sleep(self.words.expovariate(self.args.rate))
            tasks.append(asyncio.create_task(self.request()))
        await asyncio.gather(*tasks)

    async def run(self):
        started = time.perf_counter()
        await (self.open() if self.args.rate else self.closed())
        seconds = time.perf_counter() - started
        return {"completed": self.completed, "refused": self.refused, "failed": self.failed, "reasons": self.reasons,
                "seconds": round(seconds, 3), "generated_tokens_per_s": round(self.tokens / seconds, 2),
                "ttft_s": quantiles(self.ttft), "gap_s": quantiles(self.gaps), "request_s": quantiles(self.times)}


WORDS = ("time year people way day man thing woman life child world school state family student group country problem "
         "hand part place case week company system program question work government number night point home water room "
         "mother area money story fact month lot right study book eye job word business issue side kind head house "
         "service friend father power hour game line end member law car city community name").split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--path", default="/v1/completions")
    parser.add_argument("--model", required=True)
    parser.add_argument("--api-key", default="")
    parser.add_argument("--streams", type=int, default=16, help="at once, each waiting for its answer")
    parser.add_argument("--requests", type=int, default=64, help="in all")
    parser.add_argument("--rate", type=float, default=0, help="instead: arrivals a second, Poisson")
    parser.add_argument("--seconds", type=float, default=60, help="with --rate: how long requests arrive")
    parser.add_argument("--prompt-words", type=int, default=64)
    parser.add_argument("--shared-head", type=int, default=0, help="sentences that all prompts begin with")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    print(json.dumps(asyncio.run(Load(parser.parse_args()).run())))


if __name__ == "__main__":
    main()
