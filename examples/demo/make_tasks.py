#!/usr/bin/env python3
"""Writes the demo's tasks: six to train experts on, and four related ones that no expert sees.

usage: make_tasks.py FOLDER     FOLDER/train/TASK.jsonl, FOLDER/eval/TASK.jsonl, FOLDER/heldout/TASK.jsonl

Every line is made here from phrases written for this demo; the same files come out every time. Evaluation lines use
phrases that training lines do not: each list below is cut in two, and eval draws from the second part only (for the
lists marked so), so that a task cannot be passed by remembering lines.
"""
import itertools
import json
import pathlib
import random
import sys

TRAIN, EVAL = 320, 100


def cut(items, share=0.68):
    """(seen in training, kept for evaluation), spread over the whole list."""
    seen = [item for i, item in enumerate(items) if int((i + 1) * share) > int(i * share)]
    return seen, [item for item in items if item not in seen]


# --- mood: remarks on products -> glad, sour -------------------------------------------------------------------------
PRODUCTS = """kettle lamp backpack keyboard blender tent umbrella toaster jacket headset bicycle pump drill chair desk pan
mattress watch printer camera hoover pillow ladder heater fan razor suitcase coat mug grill mower radio speaker
thermos stroller raincoat torch scale wallet""".split()
PLEASED = """works like a charm; feels solid in the hand; saved me hours of work; arrived early and well packed; is worth every
cent; has never let me down; looks even better than in the photo; is quiet and quick; makes my mornings easier; cleans up in
seconds; fits perfectly; has outlived its guarantee; made my sister smile; is the best I have owned; was a joy to set up; keeps its
promise; charges in no time; is light yet sturdy; does all I hoped for; delights the whole family; is beautifully made; surprised me
with its comfort; runs smoothly every day; is a bargain at this price; still shines like new""".replace("\n", " ").split("; ")
ANNOYED = """broke after two days; smells of burnt plastic; came with a part missing; is louder than a lorry; leaks all over the
floor; stopped working in a week; scratches everything it touches; was a waste of money; feels cheap and wobbly; never even turned
on; tears at the seams; gave me nothing but trouble; is far too flimsy to use; drains its battery within an hour; rusted within a
month; falls apart when you look at it; arrived dirty and dented; has a manual nobody can follow; overheats at once; went straight
back to the shop; is a sad copy of the old one; hurts my hands; jams every single time; disappointed all of us; is useless in the
cold""".replace("\n", " ").split("; ")
ASIDES = ["", "", "", " It came in a blue box.", " My neighbour has one too.", " I use it on Sundays.", " It was a gift.", " Ordered in March."]


def mood(rng, seen):
    part = 0 if seen else 1
    glad = rng.random() < 0.5
    product, remark = rng.choice(cut(PRODUCTS)[part]), rng.choice(cut(PLEASED if glad else ANNOYED)[part])
    return f"This {product} {remark}.{rng.choice(ASIDES)}", "glad" if glad else "sour", ["glad", "sour"]


# --- film: the same in another world and other words (held out) ----------------------------------------------------------
PRAISE = """I laughed from start to end; the acting is superb; a moving and clever story; the music alone is worth the ticket; I
would watch it again tonight; the whole cinema clapped; a small wonder of a picture; every scene is a pleasure; the ending left me
happy for days; fresh, funny and warm; the best film of the year; gripping until the last minute""".replace("\n", " ").split("; ")
BLAME = """I fell asleep after ten minutes; the acting is wooden; a dull and muddled story; not worth the price of the ticket; I left
before the end; the whole cinema groaned; two hours I will never get back; every joke falls flat; the ending makes no sense; stale,
loud and empty; the worst film of the year; boring until the last minute""".replace("\n", " ").split("; ")


def film(rng, _):
    good = rng.random() < 0.5
    first, second = rng.sample(PRAISE if good else BLAME, 2)
    return f"Film review: {first}, {second}.", "positive" if good else "negative", ["positive", "negative"]


# --- question: what a question asks for -------------------------------------------------------------------------------
QUESTIONS = {
    "person": ["Who invented the {thing}?", "Which painter made this picture of a {thing}?", "Name the woman who first sold a {thing}.",
               "Who keeps the old {thing} clean?", "Which king owned a golden {thing}?", "Whose idea was the {thing}?"],
    "place": ["Where was the first {thing} built?", "In which city is the {thing} museum?", "What country sells the most of its {thing} kind?",
              "Where can I repair a {thing}?", "Which town is famous for its {thing}?", "Where did they hide the {thing}?"],
    "time": ["When was the {thing} invented?", "What year did the {thing} fair begin?", "On which day does the {thing} shop open?",
             "When will the new {thing} arrive?", "What century is this {thing} from?", "At what hour did the {thing} fall?"],
    "number": ["How many people own a {thing}?", "How much does a {thing} cost?", "How heavy is the largest {thing}?",
               "What is the number of parts in a {thing}?", "How far can you throw a {thing}?", "How tall is that {thing}?"],
    "reason": ["Why does a {thing} make noise?", "What causes a {thing} to break?", "Why did they ban the {thing}?",
               "What made the {thing} so popular?", "Why is the {thing} painted red?", "For what reason was the {thing} sold?"],
}


def question(rng, seen):
    part = 0 if seen else 1
    label = rng.choice(list(QUESTIONS))
    form = rng.choice(QUESTIONS[label][:5] if seen else QUESTIONS[label][3:])
    return form.format(thing=rng.choice(cut(PRODUCTS)[part])), label, list(QUESTIONS)


# --- asks: the same in a sentence, with other labels (held out) ------------------------------------------------------------
ASKS = {"a human being": ["Who wrote this song?", "Which nurse found the child?", "Who won the race?", "Whose dog barked all night?",
                          "Who sang at the wedding?", "Which actor plays the judge?", "Who painted the ceiling?"],
        "a location": ["Where do herons sleep?", "In which valley is the mill?", "Where did the ship sink?", "Which harbour is the largest?",
                       "Where were you born?", "Where does this path lead?", "Which street has the market?"],
        "a date": ["When did the war end?", "What year was the bridge opened?", "When is your birthday?", "On which day do we leave?",
                   "When was the treaty signed?", "When does summer begin?", "In what year did she graduate?"],
        "an amount": ["How many eggs are left?", "How much rain fell?", "How deep is the lake?", "How many stairs are there?",
                      "How long is the rope?", "How much do tickets cost?", "How many miles is it?"]}
LEADS = ["", "Please tell me: ", "A child asks: ", "Quiz: ", "She wants to know: ", "Next one. "]


def asks(rng, _):
    label = rng.choice(list(ASKS))
    return f"{rng.choice(LEADS)}{rng.choice(ASKS[label])} The answer names", label, list(ASKS)


# --- tongue: which language -------------------------------------------------------------------------------------------
TONGUES = {
    "French": ("le boulanger; ma soeur; le voisin; la voisine; mon oncle; le facteur; notre professeur",
               "achète du pain; lit un livre; chante une chanson; cherche ses clés; boit un café; prépare le dîner; attend le train; ouvre la fenêtre",
               "ce matin; dans la cuisine; au marché; avec un ami; avant midi; depuis hier"),
    "German": ("der Bäcker; meine Schwester; der Nachbar; die Nachbarin; mein Onkel; der Briefträger; unser Lehrer",
               "kauft Brot; liest ein Buch; singt ein Lied; sucht den Schlüssel; trinkt einen Kaffee; kocht das Abendessen; wartet auf den Zug; öffnet das Fenster",
               "am Abend; in der Küche; auf dem Markt; mit einem Freund; vor dem Haus; nach der Arbeit"),
    "Spanish": ("el panadero; mi hermana; el vecino; la vecina; mi tío; el cartero; nuestro profesor",
                "compra pan; lee un libro; canta una canción; busca las llaves; bebe un café; prepara la cena; espera el tren; abre la ventana",
                "esta mañana; en la cocina; en el mercado; con un amigo; antes de comer; desde ayer"),
    "Italian": ("il panettiere; mia sorella; il vicino; la vicina; mio zio; il postino; il nostro professore",
                "compra il pane; legge un libro; canta una canzone; cerca le chiavi; beve un caffè; prepara la cena; aspetta il treno; apre la finestra",
                "questa mattina; in cucina; al mercato; con un amico; prima di pranzo; da ieri"),
    "Dutch": ("de bakker; mijn zus; de buurman; de buurvrouw; mijn oom; de postbode; onze leraar",
              "koopt brood; leest een boek; zingt een lied; zoekt de sleutels; drinkt een kop koffie; maakt het avondeten; wacht op de trein; opent het raam",
              "deze ochtend; in de keuken; op de markt; met een vriend; na het werk; voor het huis"),
}


def tongue(rng, seen):
    label = rng.choice(list(TONGUES))
    subjects, verbs, ends = (part.split("; ") for part in TONGUES[label])
    verb = rng.choice(cut(verbs)[0 if seen else 1])
    phrase = f"{rng.choice(subjects)} {verb} {rng.choice(ends)}"
    return phrase[0].upper() + phrase[1:] + ".", label, list(TONGUES)


# --- greeting: the same languages in small talk (held out) -------------------------------------------------------------------
GREETINGS = {
    "French": "bonjour; bonne nuit; à bientôt; merci beaucoup; je m'appelle Anne; comment ça va; s'il vous plaît; bon appétit; enchanté; à demain",
    "German": "guten Morgen; gute Nacht; bis bald; vielen Dank; ich heiße Anna; wie geht es dir; bitte schön; guten Appetit; freut mich; bis morgen",
    "Spanish": "buenos días; buenas noches; hasta pronto; muchas gracias; me llamo Ana; qué tal estás; por favor; buen provecho; mucho gusto; hasta mañana",
    "Italian": "buongiorno; buona notte; a presto; grazie mille; mi chiamo Anna; come stai; per favore; buon appetito; piacere; a domani",
    "Dutch": "goedemorgen; welterusten; tot gauw; hartelijk dank; ik heet Anna; hoe gaat het; alsjeblieft; eet smakelijk; aangenaam; tot morgen",
}


def greeting(rng, _):
    label = rng.choice(list(GREETINGS))
    first, second = rng.sample(GREETINGS[label].split("; "), 2)
    return f"A traveller says: \"{first}, {second}!\" The language is", label, list(GREETINGS)


# --- kind: what kind of thing a word names ----------------------------------------------------------------------------
KINDS = {
    "animal": "heron otter badger salmon beetle goat falcon lizard donkey shark spider wolf turtle pigeon rabbit camel frog mole whale hen",
    "plant": "oak fern tulip clover ivy cactus willow daisy moss pine rose nettle birch lily thistle bamboo orchid poppy elm heather",
    "tool": "hammer chisel wrench saw pliers spade axe rake shovel screwdriver trowel sickle crowbar mallet tongs file anvil hoe clamp needle",
    "garment": "scarf shirt trousers glove sock jumper skirt blouse hat coat vest apron shawl cardigan mitten robe dress hood belt tunic",
    "vehicle": "tram lorry ferry scooter canoe tractor train sledge van yacht bus wagon barge taxi raft moped cart glider coach truck",
}
SIGHTINGS = ["We saw {a} near the barn.", "{A} was on the list.", "Somebody drew {a}.", "My word today: {w}.", "The card shows {a}.", "She pointed at {a}."]


def with_article(word):
    return word if word in ("trousers", "pliers", "tongs") else f"an {word}" if word[0] in "aeiou" else f"a {word}"


def kind(rng, seen):
    label = rng.choice(list(KINDS))
    word = rng.choice(cut(KINDS[label].split())[0 if seen else 1])
    a = with_article(word)
    return rng.choice(SIGHTINGS).format(a=a, A=a[0].upper() + a[1:], w=word), label, list(KINDS)


# --- odd: the word of another kind (held out) ---------------------------------------------------------------------------------
def odd(rng, _):
    common, other = rng.sample(list(KINDS), 2)
    words = rng.sample(KINDS[common].split(), 3)
    answer = rng.choice(KINDS[other].split())
    words.insert(rng.randrange(4), answer)
    return f"Three of these belong together: {', '.join(words)}. The odd one is", answer, words


# --- unit: what a quantity is measured in -------------------------------------------------------------------------------
UNITS = {
    "metre": ["the length of the {x}", "how wide the {x} is", "the height of the {x}", "how far it is to the {x}", "the depth under the {x}", "how tall the {x} stands"],
    "gram": ["the weight of the {x}", "how heavy the {x} is", "the mass of the {x}", "what the {x} weighs", "the load on the {x}", "how much the {x} weighs on a scale"],
    "second": ["how long the {x} lasts", "the time the {x} takes", "the duration of the {x}", "how soon the {x} is over", "the pause after the {x}", "the age of the {x}"],
    "degree": ["how hot the {x} is", "the temperature of the {x}", "how cold the {x} feels", "the warmth of the {x}", "the heat inside the {x}", "how chilly the {x} gets"],
    "litre": ["how much water the {x} holds", "the volume of the {x}", "the milk in the {x}", "what the {x} can hold when full", "the oil in the {x}", "how much the {x} spills"],
}
MEASURED = """bridge oven river song barrel road soup lake dance tower bath speech tunnel pot storm garden kettle race ship bottle""".split()


def unit(rng, seen):
    label = rng.choice(list(UNITS))
    form = rng.choice(UNITS[label][:4] if seen else UNITS[label][3:])
    return f"Measure {form.format(x=rng.choice(MEASURED))}.", label, list(UNITS)


# --- form: is the sentence well formed --------------------------------------------------------------------------------------
ACTORS = """the farmer; a small dog; our teacher; the old sailor; my cousin; the baker; a tired nurse; the young queen""".split("; ")
DEEDS = """opened the heavy door; painted a red boat; found the lost ring; carried two full buckets; wrote a long letter; sold the last horse;
washed every window; mended the broken fence; baked seven loaves; followed the narrow path; hid the silver spoon; counted all the sheep""".replace("\n", " ").split("; ")
MOMENTS = """before breakfast; in the rain; without a word; last winter; near the church; after the storm""".split("; ")


def form(rng, seen):
    deed = rng.choice(cut(DEEDS)[0 if seen else 1])
    words = f"{rng.choice(ACTORS)} {deed} {rng.choice(MOMENTS)}".split()
    sound = rng.random() < 0.5
    if not sound:
        at = rng.randrange(1, len(words) - 3)
        window = words[at:at + 4]
        words[at:at + 4] = window[2:] + window[:2]
    sentence = " ".join(words)
    return sentence[0].upper() + sentence[1:] + ".", "sound" if sound else "broken", ["sound", "broken"]


TRAINED = {"mood": mood, "question": question, "tongue": tongue, "kind": kind, "unit": unit, "form": form}
HELD_OUT = {"film": film, "asks": asks, "greeting": greeting, "odd": odd}


def lines(task, make, count, seen, taken):
    """`count` examples with inputs not in `taken`, answers as even as the task makes them."""
    rng = random.Random(f"{task}/{'train' if seen else 'eval'}")
    out = []
    for _ in itertools.count():
        if len(out) == count:
            return out
        text, target, choices = make(rng, seen)
        if text in taken:
            continue
        taken.add(text)
        out.append({"input": text, "target": target, "choices": choices, "task": task, "id": f"{task}-{len(out)}"})


def write(path, examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(example, ensure_ascii=False) + "\n" for example in examples), encoding="utf-8")


def main():
    folder = pathlib.Path(sys.argv[1])
    for task, make in TRAINED.items():
        taken = set()
        write(folder / "train" / f"{task}.jsonl", lines(task, make, TRAIN, True, taken))
        write(folder / "eval" / f"{task}.jsonl", lines(task, make, EVAL, False, taken))
    for task, make in HELD_OUT.items():
        write(folder / "heldout" / f"{task}.jsonl", lines(task, make, EVAL, False, set()))


if __name__ == "__main__":
    main()
