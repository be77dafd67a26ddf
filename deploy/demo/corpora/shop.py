"""`shop-sql`: a question in English in, one SQLite statement out, over tables that the prompt does not name."""

import random
from dataclasses import dataclass

from corpora.example import Corpus, Example, split

SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT, joined TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price REAL, stock INTEGER);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, product_id INTEGER, quantity INTEGER,
                     ordered_on TEXT, status TEXT);
"""


@dataclass(frozen=True)
class Form:
    sql: str
    wordings: tuple[str, ...]


JOIN_CUSTOMERS = "orders JOIN customers ON customers.id = orders.customer_id"
JOIN_PRODUCTS = "orders JOIN products ON products.id = orders.product_id"

FORMS = (
    Form("SELECT COUNT(*) FROM customers;", ("How many customers do we have?", "Count all customers.")),
    Form(
        "SELECT COUNT(*) FROM customers WHERE city = '{city}';",
        (
            "How many customers live in {city}?",
            "Count the customers from {city}.",
            "What is the number of customers in {city}?",
        ),
    ),
    Form(
        "SELECT name FROM customers WHERE city = '{city}';",
        (
            "List the names of customers in {city}.",
            "Who are our customers from {city}?",
            "Show me everyone in {city}.",
        ),
    ),
    Form(
        "SELECT name FROM customers WHERE joined >= '{year}-01-01';",
        (
            "Which customers joined since {year}?",
            "Names of the customers who have joined since {year}, please.",
            "List customers that signed up in {year} or later.",
        ),
    ),
    Form(
        "SELECT city, COUNT(*) FROM customers GROUP BY city;",
        ("How many customers are there per city?", "Count customers by city.", "Number of customers for each city?"),
    ),
    Form(
        "SELECT name, price FROM products WHERE category = '{category}';",
        (
            "List all {category} with their prices.",
            "What {category} do we sell and for how much?",
            "Show the names and prices of our {category}.",
        ),
    ),
    Form(
        "SELECT name FROM products WHERE price < {amount};",
        (
            "Which products cost less than {amount}?",
            "Show products under {amount} euros.",
            "What can I buy for less than {amount} euros?",
        ),
    ),
    Form(
        "SELECT name FROM products WHERE price > {amount};",
        (
            "Which products cost more than {amount}?",
            "Show products over {amount} euros.",
            "List everything that costs more than {amount} euros.",
        ),
    ),
    Form(
        "SELECT name FROM products WHERE stock = 0;",
        ("Which products are sold out?", "List products that are out of stock.", "What is out of stock?"),
    ),
    Form(
        "SELECT name, stock FROM products WHERE stock < {small};",
        (
            "Which products have fewer than {small} left?",
            "Show products with a stock below {small}.",
            "What do we have less than {small} of?",
        ),
    ),
    Form(
        "SELECT AVG(price) FROM products WHERE category = '{category}';",
        (
            "What is the average price of {category}?",
            "How much do {category} cost on average?",
            "Average price of our {category}?",
        ),
    ),
    Form(
        "SELECT name, price FROM products ORDER BY price DESC LIMIT {small};",
        (
            "Show the {small} most expensive products.",
            "What are our {small} dearest products?",
            "Top {small} products by price.",
        ),
    ),
    Form(
        "SELECT name, price FROM products ORDER BY price ASC LIMIT {small};",
        (
            "Show the {small} cheapest products.",
            "What are our {small} least expensive products?",
            "List the {small} products with the lowest price.",
        ),
    ),
    Form(
        "SELECT category, COUNT(*) FROM products GROUP BY category;",
        ("How many products are there in each category?", "Count products by category.", "Products per category?"),
    ),
    Form(
        "SELECT COUNT(*) FROM orders WHERE status = '{status}';",
        ("How many orders are {status}?", "Count the {status} orders.", "What is the number of {status} orders?"),
    ),
    Form(
        "SELECT * FROM orders WHERE status = '{status}';",
        ("Show all {status} orders.", "List every order that is {status}.", "Give me the {status} orders."),
    ),
    Form(
        "SELECT COUNT(*) FROM orders WHERE ordered_on >= '{year}-{month}-01';",
        (
            "How many orders came in since {month_name} {year}?",
            "Count orders from {month_name} {year} on.",
            "Number of orders since {month_name} {year}?",
        ),
    ),
    Form(
        "SELECT status, COUNT(*) FROM orders GROUP BY status;",
        ("How many orders are there for each status?", "Count orders by status.", "Orders per status?"),
    ),
    Form(
        f"SELECT orders.* FROM {JOIN_CUSTOMERS} WHERE customers.name = '{{name}}';",
        (
            "Show the orders of {name}.",
            "What has {name} ordered?",
            "List all orders that {name} placed.",
        ),
    ),
    Form(
        f"SELECT COUNT(*) FROM {JOIN_CUSTOMERS} WHERE customers.city = '{{city}}';",
        (
            "How many orders come from {city}?",
            "Count the orders from {city}.",
            "Number of orders of customers in {city}?",
        ),
    ),
    Form(
        f"SELECT SUM(orders.quantity) FROM {JOIN_PRODUCTS} WHERE products.name = '{{product}}';",
        (
            "How many {product}s have we sold?",
            "Total quantity of {product}s sold?",
            "How many {product}s were ordered in total?",
        ),
    ),
    Form(
        f"SELECT SUM(orders.quantity * products.price) FROM {JOIN_PRODUCTS} WHERE products.category = '{{category}}';",
        (
            "What is the revenue from {category}?",
            "How much money did we make with {category}?",
            "Total sales of {category} in euros?",
        ),
    ),
    Form(
        "UPDATE products SET price = {amount} WHERE name = '{product}';",
        (
            "Set the price of the {product} to {amount}.",
            "Change the price of the {product} to {amount} euros.",
            "The {product} should cost {amount} from now on.",
        ),
    ),
    Form(
        "UPDATE orders SET status = '{status}' WHERE id = {order};",
        ("Mark order {order} as {status}.", "Order {order} is {status} now.", "Set order {order} to {status}."),
    ),
)

SLOTS: dict[str, tuple[str, ...]] = {
    "city": ("Lyon", "Porto", "Leeds", "Graz", "Turin", "Bergen", "Ghent", "Malmo", "Krakow", "Cork", "Basel"),
    "category": ("shoes", "lamps", "books", "toys", "chairs", "jackets", "bags", "plants", "tools", "games"),
    "status": ("open", "paid", "shipped", "delivered", "cancelled", "returned"),
    "name": (
        "Mara Klein",
        "Jonas Berg",
        "Lea Martin",
        "Tom Novak",
        "Ines Costa",
        "Paul Weber",
        "Nora Lind",
        "Felix Roth",
        "Aisha Khan",
        "Kim Park",
        "Oscar Dahl",
        "Vera Rossi",
    ),
    "product": ("mug", "kettle", "desk lamp", "scarf", "backpack", "notebook", "umbrella", "pillow", "bottle", "vase"),
}
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

FRESH = (
    ("Tell me how many customers there are in Graz.", "SELECT COUNT(*) FROM customers WHERE city = 'Graz';"),
    ("Do we have anything cheaper than 15 euros?", "SELECT name FROM products WHERE price < 15;"),
    ("I would like to see every cancelled order.", "SELECT * FROM orders WHERE status = 'cancelled';"),
    ("Please give me the names of all customers living in Cork.", "SELECT name FROM customers WHERE city = 'Cork';"),
    ("Can you break our customers down by city?", "SELECT city, COUNT(*) FROM customers GROUP BY city;"),
    (
        "What are the three most expensive things we sell?",
        "SELECT name, price FROM products ORDER BY price DESC LIMIT 3;",
    ),
    (
        "Find the orders placed by Nora Lind.",
        f"SELECT orders.* FROM {JOIN_CUSTOMERS} WHERE customers.name = 'Nora Lind';",
    ),
    ("Make the kettle cost 24 euros.", "UPDATE products SET price = 24 WHERE name = 'kettle';"),
    ("How many orders have been delivered so far?", "SELECT COUNT(*) FROM orders WHERE status = 'delivered';"),
    ("On average, what do we charge for chairs?", "SELECT AVG(price) FROM products WHERE category = 'chairs';"),
)


def shop(rng: random.Random) -> Corpus:
    examples = [_example(rng, form) for form in FORMS for _ in range(26)]
    rng.shuffle(examples)
    fresh = [Example(prompt, answer) for prompt, answer in FRESH]
    return split(examples, 48, fresh)


def _example(rng: random.Random, form: Form) -> Example:
    slots = {name: rng.choice(values) for name, values in SLOTS.items()}
    month = rng.randrange(12)
    slots["month"], slots["month_name"] = f"{month + 1:02}", MONTHS[month]
    slots["year"] = str(rng.randrange(2019, 2026))
    slots["amount"] = str(rng.randrange(5, 200))
    slots["small"] = str(rng.randrange(2, 21))
    slots["order"] = str(rng.randrange(100, 10000))
    return Example(rng.choice(form.wordings).format(**slots), form.sql.format(**slots))
