#!/usr/bin/env python3
"""tests/golden/metrics/: what the reference packages say of pairs of texts, and of p-values.

usage: .peers/metrics/bin/python tools/goldens/metrics.py        (tools/peers/make_venvs.sh metrics)

texts.jsonl   one prediction and its references: rouge-score's ROUGE-1, -2, -L (plain and stemmed, best reference by
              F-measure), sacrebleu's sentence BLEU and the tokens of 13a, SQuAD's EM and F1 (the official script, as
              transformers 4 ships it)
corpus.json   sacrebleu's corpus BLEU of all of them
stems.txt     NLTK's Porter stems, "word stem" a line
tests.json    scipy's exact binomial test, statsmodels' Holm correction
"""
import json
import pathlib
import random

import sacrebleu
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests
from transformers.data.metrics import squad_metrics

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/metrics"

BY_HAND = [
    ("The cat sat on the mat.", ["The cat is on the mat.", "There is a cat on the mat."]),
    ("the the the the the the the", ["The cat is on the mat."]),
    ("", ["something"]),
    ("a", ["A."]),
    ("An apple, the pear!", ["apple pear", "the apple"]),
    ("U.S. sales rose 3.5% to $1,234.56 -- a 2-year high (est.)", ["US sales rose by 3.5 percent to $1,234.56, a two-year high"]),
    ("He said &quot;no&quot; &amp; left <b>now</b> &lt;skipped&gt;", ["He said \"no\" & left now"]),
    ("hyphen-\nated line\nbreaks", ["hyphenated line breaks"]),
    ("naïve café costs 5€ — ÜBER İstanbul", ["naive cafe costs 5€ - über istanbul"]),
    ("ΟΔΥΣΣΕΥΣ ΣΟΦΟΣ. ὈΔΥΣΣΕΎΣ", ["οδυσσευς σοφος. ὀδυσσεύς"]),
    ("日本語 の テスト。", ["日本語 の テスト"]),
    ("in 1990-1995, v2.0,x .5 5. 1,000,000", ["in 1990 - 1995 , v2.0 , x .5 5 ."]),
    ("the quick brown fox", ["the quick brown fox"]),
    ("running runners ran easily happily; relational conditional", ["run runner running easy happy relate condition"]),
    ("word", ["word word word word word word"]),
    ("one two three four five six", ["six five four three two one"]),
    ("\u00a0non\u2003breaking\u3000space\u200b", ["non breaking space"]),
    ("a_b the_c an-d", ["ab the_c and"]),
    ("theatre another banana", ["the theatre an another a banana"]),
    ("x²y ½ Ⅷ ٣", ["x2y 1/2 viii 3"]),
]


def random_texts(rng, count):
    words = ("the a an of to and in It is was for; on that, with as by. at from (or) not be has were which I've 10 2.5 3-4 "
             "nations relational ponies flies agreed hopping falling filing happy conditional rationally enjoyment generously "
             "communism adjustment replacement triplicate goodness formality sensibilities \"quoted\" it's end. Größe").split()
    for _ in range(count):
        base = [rng.choice(words) for _ in range(rng.randint(1, 25))]
        references = []
        for _ in range(rng.randint(1, 3)):
            other = [w for w in base if rng.random() > 0.3]
            while not other or rng.random() < 0.7:
                other.insert(rng.randint(0, len(other)), rng.choice(words))
            references.append(" ".join(other))
        yield " ".join(base), references


def best_rouge(scorer, name, prediction, references):
    return max(scorer.score(reference, prediction)[name].fmeasure for reference in references)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    pairs = BY_HAND + list(random_texts(rng, 60))
    plain = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    stemmed = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    tokenizer = Tokenizer13a()
    with open(OUT / "texts.jsonl", "w", encoding="utf-8") as out:
        for prediction, references in pairs:
            line = {
                "prediction": prediction,
                "references": references,
                "rouge_1": best_rouge(plain, "rouge1", prediction, references),
                "rouge_2": best_rouge(plain, "rouge2", prediction, references),
                "rouge_l": best_rouge(plain, "rougeL", prediction, references),
                "rouge_l_stemmed": best_rouge(stemmed, "rougeL", prediction, references),
                "bleu": sacrebleu.sentence_bleu(prediction, references).score / 100,
                "words_13a": tokenizer(prediction.rstrip()).split(),
                "squad_match": max(squad_metrics.compute_exact(r, prediction) for r in references),
                "token_f1": max(squad_metrics.compute_f1(r, prediction) for r in references),
            }
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
    most = max(len(references) for _, references in pairs)
    streams = [[r[i] if i < len(r) else None for _, r in pairs] for i in range(most)]
    bleu = sacrebleu.corpus_bleu([p for p, _ in pairs], streams)
    (OUT / "corpus.json").write_text(json.dumps({"bleu": bleu.score, "bp": bleu.bp}) + "\n")

    stemmer = PorterStemmer()
    letters = "aeiouybcdlnrstvwxz"
    suffixes = ("sses ies ss s eed ed ing at bl iz y ational tional enci anci izer bli alli entli eli ousli ization ation ator alism "
                "iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able "
                "ible ant ement ment ent sion tion ou ism ate iti ous ive ize e ll ied").split()
    words = set(stemmer.pool) | {"ties", "dies", "tied", "yyyy", "say", "cry", "by", "42nd", "ion"}
    while len(words) < 1500:
        words.add("".join(rng.choice(letters) for _ in range(rng.randint(1, 6))) + rng.choice(suffixes))
    (OUT / "stems.txt").write_text("".join(f"{w} {stemmer.stem(w)}\n" for w in sorted(words)))

    splits = [(0, 0), (1, 0), (5, 5), (3, 12), (12, 3), (0, 20), (100, 140), (900, 1100)]
    mcnemar = [[a, b, binomtest(a, a + b, 0.5).pvalue if a + b else 1.0] for a, b in splits]
    p = [0.01, 0.04, 0.03, 0.005, 0.9, 0.5]
    tests = {"mcnemar": mcnemar, "p": p, "holm": multipletests(p, method="holm")[1].tolist()}
    (OUT / "tests.json").write_text(json.dumps(tests) + "\n")


if __name__ == "__main__":
    main()
