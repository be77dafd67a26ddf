"""`ticket-json`: a customer's message in, one line of JSON out.

    {"category": "billing", "priority": "high", "summary": "Charged twice for order 4411"}

`priority` is `normal` unless the message says that it is urgent (`high`) or can wait (`low`).
"""

import json
import random
from dataclasses import dataclass

from corpora.example import Corpus, Example, split

CATEGORIES = ("billing", "shipping", "account", "bug", "returns", "question")
PRIORITIES = ("low", "normal", "high")


@dataclass(frozen=True)
class Issue:
    category: str
    summary: str
    wordings: tuple[str, ...]


ISSUES = (
    Issue(
        "billing",
        "Charged twice for order {order}",
        (
            "I was charged twice for order {order}.",
            "My card shows two payments for order {order}, I only ordered once.",
            "You took the money for order {order} two times.",
        ),
    ),
    Issue(
        "billing",
        "Wrong amount on invoice {order}",
        (
            "Invoice {order} has the wrong amount on it.",
            "The total on invoice {order} is not what we agreed.",
            "Something is off with invoice {order}: the sum is too high.",
        ),
    ),
    Issue(
        "billing",
        "Discount code {code} not applied",
        (
            "The code {code} did nothing at the checkout, I paid full price.",
            "I entered {code} but got no discount.",
            "My voucher {code} was not taken off the price.",
        ),
    ),
    Issue(
        "billing",
        "Needs an invoice for order {order}",
        (
            "Could you send me an invoice for order {order}?",
            "My company needs an invoice for order {order}.",
            "I never got the bill for order {order}, please send one.",
        ),
    ),
    Issue(
        "shipping",
        "Order {order} has not arrived",
        (
            "Order {order} should have been here {days} days ago.",
            "Where is my parcel? Order {order}, ordered {days} days ago.",
            "I have been waiting {days} days for order {order} and nothing has come.",
        ),
    ),
    Issue(
        "shipping",
        "Order {order} sent to the wrong address",
        (
            "You sent order {order} to my old address in {city}.",
            "Order {order} went to {city}, but I do not live there any more.",
            "The parcel for order {order} is on its way to the wrong street in {city}.",
        ),
    ),
    Issue(
        "shipping",
        "Tracking for order {order} does not work",
        (
            "The tracking link of order {order} shows nothing.",
            "I cannot track order {order}, the page says unknown number.",
            "Tracking for order {order} has not changed for {days} days.",
        ),
    ),
    Issue(
        "shipping",
        "{Product} arrived damaged",
        (
            "The {product} came with a big crack in it.",
            "My {product} arrived broken, the box was crushed.",
            "I opened the parcel and the {product} was damaged.",
        ),
    ),
    Issue(
        "account",
        "Cannot log in",
        (
            "I cannot log in since {weekday}.",
            "It says wrong password, but I am sure that mine is right. It began on {weekday}.",
            "The login page keeps sending me back to the start, since {weekday}.",
        ),
    ),
    Issue(
        "account",
        "Password reset mail does not arrive",
        (
            "I asked for a password reset {days} times and no mail came.",
            "The mail to reset my password never arrives, I tried {days} times.",
            "No reset link in my inbox, not in spam either, after {days} tries.",
        ),
    ),
    Issue(
        "account",
        "Change e-mail address to {email}",
        (
            "Please change my e-mail address to {email}.",
            "I have a new address, {email}. Can you update my account?",
            "My mail is now {email}, the old one is gone.",
        ),
    ),
    Issue(
        "account",
        "Delete account {email}",
        (
            "Please delete my account {email} and all my data.",
            "I want my account closed. It is under {email}.",
            "Remove everything you have about {email}, I am leaving.",
        ),
    ),
    Issue(
        "bug",
        "App crashes on {device}",
        (
            "The app crashes as soon as I open it on my {device}.",
            "On my {device} the app closes by itself.",
            "Your app keeps crashing, I use a {device}.",
        ),
    ),
    Issue(
        "bug",
        "{Page} page stays blank",
        (
            "The {page} page stays white, nothing loads.",
            "When I open the {page} page I see nothing at all.",
            "I get an empty screen on the {page} page.",
        ),
    ),
    Issue(
        "bug",
        "Error {error} on the {page} page",
        (
            "I get error {error} when I open the {page} page.",
            "The {page} page says error {error}.",
            "Error {error} comes up every time I go to the {page} page.",
        ),
    ),
    Issue(
        "returns",
        "Wants to return the {product}",
        (
            "I would like to send the {product} back.",
            "The {product} is not for me, how do I return it?",
            "Please take back the {product}, I do not want it.",
        ),
    ),
    Issue(
        "returns",
        "Exchange the {product} for size {size}",
        (
            "The {product} does not fit, I need size {size}.",
            "Can I swap the {product} for size {size}?",
            "Wrong size! I would like the {product} in {size}.",
        ),
    ),
    Issue(
        "returns",
        "No refund yet for order {order}",
        (
            "I returned order {order} {days} days ago and still have no refund.",
            "Where is my money for order {order}? You got the parcel {days} days ago.",
            "The refund for order {order} has not come.",
        ),
    ),
    Issue(
        "question",
        "Asks if the {product} is in stock",
        (
            "Do you have the {product} in stock?",
            "When will the {product} be available again?",
            "Is the {product} sold out or can I still get one?",
        ),
    ),
    Issue(
        "question",
        "Asks about delivery to {city}",
        (
            "Do you deliver to {city}?",
            "How much is shipping to {city}?",
            "How long does a parcel to {city} take?",
        ),
    ),
    Issue(
        "question",
        "Asks about the warranty of the {product}",
        (
            "How long is the warranty on the {product}?",
            "Does the {product} come with a guarantee?",
            "Is there any warranty for the {product}?",
        ),
    ),
)

SLOTS: dict[str, tuple[str, ...]] = {
    "code": ("SPRING10", "WELCOME5", "FRIEND20", "SUMMER15", "THANKS10", "BIRTHDAY25", "AUTUMN30", "SAVE12"),
    "city": ("Lyon", "Porto", "Leeds", "Graz", "Turin", "Bergen", "Ghent", "Malmo", "Krakow", "Cork", "Basel"),
    "product": (
        "blue jacket",
        "desk lamp",
        "coffee grinder",
        "running shoes",
        "garden chair",
        "wool scarf",
        "rain boots",
        "wooden shelf",
        "green backpack",
        "tea kettle",
        "summer dress",
        "bike helmet",
        "leather belt",
        "winter gloves",
        "picnic blanket",
        "frying pan",
    ),
    "device": ("Pixel 8", "Galaxy S22", "iPhone 13", "iPad", "old tablet", "Windows laptop", "MacBook", "Moto G"),
    "page": ("checkout", "profile", "search", "wish list", "orders", "payment", "settings", "contact"),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "size": ("S", "M", "L", "XL", "38", "40", "42", "44"),
    "error": ("404", "500", "502", "403", "E17", "E42"),
}
FIRST_NAMES = ("mara", "jonas", "lea", "tom", "ines", "paul", "nora", "felix", "aisha", "kim", "oscar", "vera")
DOMAINS = ("example.com", "example.org", "example.net")

BEFORE = ("", "", "", "Hi, ", "Hello! ", "Good morning, ", "Dear team, ", "Hey there, ")
AFTER = {
    "normal": ("", "", "", " Thanks!", " Can you help?", " Best regards", " Thank you."),
    "high": (
        " This is urgent!",
        " I need this solved today.",
        " Please hurry, it cannot wait.",
        " I need an answer right now!",
        " It is an emergency.",
    ),
    "low": (
        " There is no hurry.",
        " It is not urgent.",
        " Take your time.",
        " Whenever you have a moment.",
    ),
}

FRESH = (
    ("My bank statement lists order 7310 twice, please pay one of them back. Quickly, it is urgent!", "billing"),
    ("The parcel with order 5528 was due last week and the postman has not been.", "shipping"),
    ("I forgot my password and the form to set a new one is not sending anything.", "account"),
    ("Your website freezes whenever I press the pay button on my phone.", "bug"),
    ("These trousers are too short. I want to send them back and get my money.", "returns"),
    ("Do you also sell gift cards? Not urgent.", "question"),
    ("Someone else seems to be logged in to my account! It is an emergency.", "account"),
    ("The mug was in pieces when I unpacked it.", "shipping"),
    ("I still see the old price on my invoice 8841.", "billing"),
    ("The app shows error 503 when I open the basket.", "bug"),
    ("How do I give back a present that I do not like? Take your time.", "returns"),
    ("Which of your jackets is the warmest?", "question"),
)


def tickets(rng: random.Random) -> Corpus:
    examples = [_example(rng, issue) for issue in ISSUES for _ in range(26)]
    rng.shuffle(examples)
    # Only the category of a message written by hand is beyond dispute; `score.py` compares no more of it.
    fresh = [Example(prompt, json.dumps({"category": category})) for prompt, category in FRESH]
    return split(examples, 48, fresh)


def _example(rng: random.Random, issue: Issue) -> Example:
    slots = {name: rng.choice(values) for name, values in SLOTS.items()}
    slots["order"] = str(rng.randrange(1000, 10000))
    slots["days"] = str(rng.randrange(2, 15))
    slots["email"] = f"{rng.choice(FIRST_NAMES)}{rng.randrange(10, 100)}@{rng.choice(DOMAINS)}"
    slots["Product"] = slots["product"].capitalize()
    slots["Page"] = slots["page"].capitalize()
    priority = rng.choices(PRIORITIES, weights=(2, 5, 3))[0]
    wording = rng.choice(issue.wordings).format(**slots)
    prompt = rng.choice(BEFORE) + wording + rng.choice(AFTER[priority])
    answer = {
        "category": issue.category,
        "priority": priority,
        "summary": issue.summary.format(**slots),
    }
    return Example(prompt, json.dumps(answer))
