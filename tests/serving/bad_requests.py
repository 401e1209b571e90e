#!/usr/bin/env python3
"""Bad requests: none crashes the server, blocks it or makes it leak.

Truncated JSON, huge and lying bodies, deep nesting, NaN, bad UTF-8, header floods, slow senders, early closes, odd
framing, from several connections at once. Between them a good request must be answered in time.

usage: bad_requests.py URL [--count N] [--process PID] [--seed N]
"""
import argparse
import concurrent.futures
import json
import os
import random
import socket
import sys
import time
import urllib.parse
import urllib.request

GOOD = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
PATHS = ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/trace", "/v1/load_lora_adapter"]


def post(body: bytes, path: str = "/v1/completions", headers: str = "", length=None) -> bytes:
    length = len(body) if length is None else length
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {length}\r\n\r\n").encode() + body


class Hostile:
    """One connection that does one bad thing; returns the status of the answer, 0 for none."""

    def __init__(self, address, rng):
        self.address, self.rng = address, rng

    def open(self):
        connection = socket.create_connection(self.address, timeout=20)
        return connection

    def exchange(self, *pieces, pause=0.0, reads=True) -> int:
        with self.open() as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    if pause:
                        time.sleep(pause)
                if not reads:
                    return 0
                answer = connection.recv(65536)
            except (ConnectionError, BrokenPipeError):
                return 0
            return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0

    def path(self):
        return self.rng.choice(PATHS)

    def truncated_json(self):
        return self.exchange(post(GOOD[: self.rng.randrange(len(GOOD))], self.path()))

    def random_bytes(self):
        return self.exchange(post(self.rng.randbytes(self.rng.randrange(1, 2000)), self.path()))

    def no_http(self):
        return self.exchange(self.rng.randbytes(self.rng.randrange(1, 500)) + b"\r\n\r\n")

    def nesting(self):
        opener = self.rng.choice([b"[", b'{"a":', b'{"prompt":[', b'{"router":{"only":['])
        return self.exchange(post(opener * self.rng.randrange(1000, 100000), self.path()))

    def not_a_number(self):
        value = self.rng.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"2147483648", b"9223372036854775808",
                                 b"1.5", b'"1"', b"[]", b"{}", b"1e308"])
        key = self.rng.choice([b"n", b"max_tokens", b"temperature", b"top_p", b"seed", b"logprobs", b"stop", b"logit_bias"])
        return self.exchange(post(b'{"prompt":"a","max_tokens":1,"' + key + b'":' + value + b"}"))

    def bad_utf8(self):
        return self.exchange(post(b'{"max_tokens":1,"prompt":"' + self.rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]) + b'"}'))

    def many_keys(self):
        return self.exchange(post(b"{" + b",".join(b'"k%d":0' % i for i in range(200000)) + b"}"))

    def repeated_keys(self):
        return self.exchange(post(b"{" + b",".join([b'"prompt":"a"'] * 50000) + b"}"))

    def header_flood(self):
        return self.exchange(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(20000)) + b"\r\n")

    def long_header(self):
        return self.exchange(b"GET / HTTP/1.1\r\nX: " + b"a" * self.rng.randrange(17000, 2000000) + b"\r\n\r\n")

    def endless_header(self):
        with self.open() as connection:
            try:
                for _ in range(100000):
                    connection.sendall(b"X: y\r\n" * 1000)
            except (ConnectionError, BrokenPipeError):
                return 0
        raise AssertionError("600 MB of header were taken")

    def huge_length(self):
        return self.exchange(post(b"{", length=self.rng.choice([100_000_000, 2**31, 2**63, 2**64 - 1])))

    def huge_body(self):
        with self.open() as connection:
            try:
                connection.sendall(post(b"", length=100_000_000))
                for _ in range(100):
                    connection.sendall(b"a" * 1_000_000)
            except (ConnectionError, BrokenPipeError):
                return 413
        raise AssertionError("a body of 100 MB was taken")

    def chunked_flood(self):
        head = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        return self.exchange(head + b"FFFFFFFF\r\n" + b"a" * 5_000_000)

    def bad_chunk(self):
        head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        return self.exchange(head + self.rng.choice([b"zz\r\n", b"-1\r\n", b"1" * 4000 + b"\r\n", b"5;" + b"x" * 70000 + b"\r\n"]))

    def two_framings(self):
        return self.exchange(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /")

    def slow_header(self):
        return self.exchange(*[bytes([c]) for c in b"GET / HTTP/1.1\r\nHost"], pause=0.2)

    def slow_body(self):
        head, *rest = post(GOOD, length=1000), b"a", b"b", b"c"
        return self.exchange(head, *rest, pause=0.7)

    def early_close(self):
        body = json.dumps({"prompt": "a b c", "max_tokens": 8, "ignore_eos": True, "stream": self.rng.random() < 0.5}).encode()
        data = post(body)
        return self.exchange(data[: self.rng.randrange(1, len(data) + 1)], reads=False)

    def close_in_stream(self):
        body = json.dumps({"prompt": "a b c", "max_tokens": 8, "ignore_eos": True, "stream": True}).encode()
        with self.open() as connection:
            connection.sendall(post(body))
            connection.recv(64)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # a reset
        return 0

    def odd_target(self):
        target = self.rng.choice([b"//v1/models", b"http://evil/v1/models", b"*", b"/../../etc/passwd", b"/page/../../x", b"/%2e%2e/x",
                                  b"/" + b"a" * 5000, b"/v1/models/" + b"%ff" * 300, b"/\x00", b"/v1/models/..%2f..%2fx"])
        return self.exchange(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def odd_method(self):
        method = self.rng.choice([b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"A" * 300, b"G\x00T"])
        return self.exchange(method + b" /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def odd_adapter(self):
        name = self.rng.choice(["..", "/etc/passwd", "a/b", "\u0000", "a" * 10000, "base", "%2e%2e", "CON", "-x", "\u202e"])
        body = json.dumps({"lora_name": name, "lora_path": self.rng.choice(["../../etc", "/etc", name])}).encode()
        return self.exchange(post(body, "/v1/load_lora_adapter"))

    def long_prompt(self):
        return self.exchange(post(json.dumps({"prompt": "word " * self.rng.randrange(100000, 700000), "max_tokens": 1}).encode()))

    def far_token(self):
        return self.exchange(post(json.dumps({"prompt": [self.rng.randrange(10**6, 2**31)], "max_tokens": 1}).encode()))


SLOW = {"slow_header", "slow_body", "huge_body", "endless_header", "many_keys", "long_prompt", "chunked_flood"}


def resident_mib(process: int) -> float:
    with open(f"/proc/{process}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--process", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    parts = urllib.parse.urlsplit(arguments.url)
    address = (parts.hostname, parts.port)
    kinds = [name for name, value in vars(Hostile).items() if callable(value) and not name.startswith("_")
             and name not in ("open", "exchange", "path")]
    rng = random.Random(arguments.seed)
    # The slow ones are a twentieth, or a run would be all waiting.
    plan = [rng.choice(kinds) if rng.random() < 0.05 else rng.choice([k for k in kinds if k not in SLOW])
            for _ in range(arguments.count)]
    for i, kind in enumerate(kinds):
        plan[i % len(plan)] = kind  # each at least once

    def good_request():
        began = time.monotonic()
        request = urllib.request.Request(arguments.url + "/v1/completions", GOOD, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert reply.status == 200
        return time.monotonic() - began

    good_request()
    statuses, slowest, sizes = {}, 0.0, []
    began = time.monotonic()

    def one(index_and_kind):
        index, kind = index_and_kind
        return kind, getattr(Hostile(address, random.Random(arguments.seed * 1_000_003 + index)), kind)()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        batch = 200
        for start in range(0, len(plan), batch):
            for kind, status in pool.map(one, list(enumerate(plan))[start : start + batch]):
                statuses.setdefault(kind, {}).setdefault(status, 0)
                statuses[kind][status] += 1
            slowest = max(slowest, good_request())
            if arguments.process:
                sizes.append(resident_mib(arguments.process))
    for kind in sorted(statuses):
        print(f"  {kind:16} " + "  ".join(f"{status or 'none'}: {count}" for status, count in sorted(statuses[kind].items())))
        for status in statuses[kind]:
            if status >= 500 and status != 503:
                print(f"a {kind} was answered {status}")
                return 1
    print(f"{len(plan)} bad requests in {time.monotonic() - began:.0f} s; a good one between them took at most {slowest:.2f} s")
    if arguments.process:
        time.sleep(8)  # past every timeout
        open_now = descriptors(arguments.process)
        print(f"resident memory {sizes[0]:.0f} MiB after the first {batch}, {sizes[-1]:.0f} MiB after the last; {open_now} descriptors open")
        third = len(sizes) // 3
        if len(sizes) >= 6 and min(sizes[-third:]) > 1.1 * max(sizes[:third]) + 16:
            print("memory grows")
            return 1
        if open_now > 64:
            print("descriptors are left open")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
