"""Write the short facts in ``data``: what a model is asked that has one known answer.

    python scripts/make_facts_data.py

Questions and answers are written here, by hand. ``data/utility/facts.jsonl`` is for tests and has the answers;
``data/prompts/facts_train.jsonl`` is for recipes and has none, since what is kept on them is what the base says. A country, a
book, an element is on one side only. The output is deterministic.
"""

from __future__ import annotations

import hashlib
import re

from source_rows import DATA, Row, order, read, write

SALT = "llmpatch-facts"
TRAIN = 0.5
PLACES = ("capitals", "continents", "languages")  # a country is on one side with all that is asked of it

# "question with {}": "subject = answer | another form of it; ...", by category.
FACTS: dict[str, tuple[str, str]] = {
    "capitals": (
        "What is the capital of {}?",
        "France = Paris; Germany = Berlin; Italy = Rome; Spain = Madrid; Portugal = Lisbon; Japan = Tokyo; China = Beijing; "
        "India = New Delhi | Delhi; Russia = Moscow; Egypt = Cairo; Kenya = Nairobi; Canada = Ottawa; Mexico = Mexico City; "
        "Brazil = Brasilia | Brasília; Argentina = Buenos Aires; Chile = Santiago; Peru = Lima; Cuba = Havana; "
        "Greece = Athens; Turkey = Ankara; Poland = Warsaw; Austria = Vienna; Hungary = Budapest; Sweden = Stockholm; "
        "Norway = Oslo; Finland = Helsinki; Denmark = Copenhagen; Ireland = Dublin; Belgium = Brussels; "
        "the Netherlands = Amsterdam; Switzerland = Bern; Iran = Tehran | Teheran; Iraq = Baghdad; Thailand = Bangkok; "
        "Vietnam = Hanoi; "
        "Indonesia = Jakarta; the Philippines = Manila; South Korea = Seoul; Australia = Canberra; New Zealand = Wellington; "
        "Ukraine = Kyiv | Kiev; Romania = Bucharest; Bulgaria = Sofia; Croatia = Zagreb; Serbia = Belgrade; "
        "Slovakia = Bratislava; Slovenia = Ljubljana; Iceland = Reykjavik | Reykjavík; Estonia = Tallinn; Latvia = Riga; "
        "Lithuania = Vilnius; Morocco = Rabat; Algeria = Algiers; Tunisia = Tunis; Libya = Tripoli; Ethiopia = Addis Ababa; "
        "Ghana = Accra; Nigeria = Abuja; Senegal = Dakar; Uganda = Kampala; Zambia = Lusaka; Zimbabwe = Harare; "
        "Angola = Luanda; Mozambique = Maputo; Madagascar = Antananarivo; Saudi Arabia = Riyadh; Jordan = Amman; "
        "Lebanon = Beirut; Syria = Damascus; Qatar = Doha; Oman = Muscat; Afghanistan = Kabul; Pakistan = Islamabad; "
        "Nepal = Kathmandu; Bangladesh = Dhaka; Mongolia = Ulaanbaatar | Ulan Bator; North Korea = Pyongyang; "
        "Malaysia = Kuala Lumpur; Cambodia = Phnom Penh; Laos = Vientiane; Colombia = Bogota | Bogotá; Ecuador = Quito; "
        "Venezuela = Caracas; Uruguay = Montevideo; Paraguay = Asuncion | Asunción; Guatemala = Guatemala City; "
        "Honduras = Tegucigalpa; Nicaragua = Managua; Costa Rica = San Jose | San José; Panama = Panama City; "
        "Jamaica = Kingston; Haiti = Port-au-Prince; the Dominican Republic = Santo Domingo; Albania = Tirana; "
        "Armenia = Yerevan; Georgia, the country = Tbilisi; Azerbaijan = Baku; Kazakhstan = Astana | Nur-Sultan; "
        "Uzbekistan = Tashkent; Cyprus = Nicosia; Malta = Valletta; Scotland = Edinburgh; Wales = Cardiff",
    ),
    "continents": (
        "On which continent is {}?",
        "Egypt = Africa; Kenya = Africa; Nigeria = Africa; Morocco = Africa; Ghana = Africa; France = Europe; Germany = Europe; "
        "Poland = Europe; Sweden = Europe; Italy = Europe; Japan = Asia; India = Asia; Vietnam = Asia; Nepal = Asia; "
        "Thailand = Asia; Brazil = South America; Peru = South America; Chile = South America; Colombia = South America; "
        "Canada = North America; Mexico = North America",
    ),
    "languages": (
        "Which language do most people speak in {}?",
        "Brazil = Portuguese; Mexico = Spanish; Argentina = Spanish; Austria = German; Egypt = Arabic; Japan = Japanese; "
        "Italy = Italian; Poland = Polish; Greece = Greek; Sweden = Swedish; Finland = Finnish; Iran = Persian | Farsi; "
        "Portugal = Portuguese; Russia = Russian; Australia = English; Cuba = Spanish; Hungary = Hungarian; "
        "Denmark = Danish; Vietnam = Vietnamese; Thailand = Thai",
    ),
    "symbols": (
        "What is the chemical symbol for {}?",
        "gold = Au; silver = Ag; iron = Fe; copper = Cu; lead = Pb; tin = Sn; sodium = Na; potassium = K; oxygen = O; "
        "hydrogen = H; carbon = C; nitrogen = N; helium = He; neon = Ne; calcium = Ca; magnesium = Mg; aluminum = Al; "
        "zinc = Zn; mercury = Hg; sulfur = S; chlorine = Cl; silicon = Si; uranium = U; nickel = Ni; phosphorus = P; "
        "lithium = Li; titanium = Ti; platinum = Pt; argon = Ar",
    ),
    "authors": (
        "Who wrote {}?",
        "Hamlet = Shakespeare; Romeo and Juliet = Shakespeare; Macbeth = Shakespeare; Pride and Prejudice = Austen; "
        "Emma = Austen; War and Peace = Tolstoy; Anna Karenina = Tolstoy; Crime and Punishment = Dostoevsky | Dostoyevsky; "
        "1984 = Orwell; Animal Farm = Orwell; Moby-Dick = Melville; The Great Gatsby = Fitzgerald; "
        "To Kill a Mockingbird = Harper Lee; The Catcher in the Rye = Salinger; The Old Man and the Sea = Hemingway; "
        "A Tale of Two Cities = Dickens; Oliver Twist = Dickens; Great Expectations = Dickens; Frankenstein = Shelley; "
        "Dracula = Stoker; Don Quixote = Cervantes; The Odyssey = Homer; The Divine Comedy = Dante; Faust = Goethe; "
        "The Metamorphosis = Kafka; Les Misérables = Hugo; Jane Eyre = Brontë | Bronte; "
        "Wuthering Heights = Brontë | Bronte; The Hobbit = Tolkien; Brave New World = Huxley; "
        "The Adventures of Tom Sawyer = Twain | Clemens; Alice's Adventures in Wonderland = Carroll; "
        "On the Origin of Species = Darwin; The Jungle Book = Kipling; The Time Machine = Wells; Ulysses = Joyce; "
        "The Chronicles of Narnia = Lewis; The Canterbury Tales = Chaucer; Paradise Lost = Milton; Walden = Thoreau",
    ),
    "sums": (
        "What is {}?",
        "2 plus 2 = 4 | four; 3 plus 4 = 7 | seven; 5 plus 5 = 10 | ten; 7 plus 5 = 12 | twelve; 8 plus 9 = 17 | seventeen; "
        "10 minus 3 = 7 | seven; 9 minus 4 = 5 | five; 20 minus 5 = 15 | fifteen; 3 times 3 = 9 | nine; "
        "4 times 5 = 20 | twenty; 6 times 7 = 42 | forty-two; 8 times 8 = 64 | sixty-four; "
        "9 times 9 = 81 | eighty-one; 5 times 6 = 30 | thirty; "
        "10 divided by 2 = 5 | five; 12 divided by 4 = 3 | three; 100 divided by 20 = 5 | five; 11 plus 11 = 22 | twenty-two; "
        "15 plus 15 = 30 | thirty; 50 plus 50 = 100 | hundred; 14 minus 8 = 6 | six; 7 times 8 = 56 | fifty-six; "
        "18 divided by 3 = 6 | six; 25 plus 25 = 50 | fifty; 30 minus 12 = 18 | eighteen; half of 10 = 5 | five; "
        "half of 100 = 50 | fifty; the square root of 16 = 4 | four; the square root of 81 = 9 | nine",
    ),
    "opposites": (
        'What is the opposite of "{}"?',
        "hot = cold; big = small | little; up = down; day = night; fast = slow; happy = sad | unhappy; light = dark | heavy; "
        "left = right; open = closed | close | shut; old = young | new; rich = poor; strong = weak; wet = dry; "
        "full = empty; early = late; hard = soft | easy; high = low; near = far; black = white; good = bad; love = hate; "
        "win = lose; true = false; loud = quiet | soft; clean = dirty; tall = short; wide = narrow; war = peace; "
        "north = south; east = west; inside = outside; first = last; push = pull; begin = end | finish | stop; buy = sell",
    ),
    "young": (
        "What do you call a young {}?",
        "dog = puppy | pup | puppies | pups; cat = kitten | kittens; cow = calf | calves | heifer; "
        "horse = foal | foals | colt | filly; sheep = lamb | lambs; goat = kid | kids; pig = piglet | piglets; "
        "duck = duckling | ducklings; chicken = chick | chicks; kangaroo = joey | joeys; bear = cub | cubs; lion = cub | cubs; "
        "deer = fawn | fawns; frog = tadpole | tadpoles | froglet; goose = gosling | goslings; swan = cygnet | cygnets; "
        "elephant = calf | calves; whale = calf | calves; fox = kit | kits | cub | cubs | pup; owl = owlet | owlets",
    ),
    "plurals": (
        'What is the plural of "{}"?',
        "child = children; mouse = mice; foot = feet; tooth = teeth; goose = geese; man = men; woman = women; leaf = leaves; "
        "knife = knives; person = people | persons; city = cities; box = boxes; baby = babies; wolf = wolves; "
        "half = halves; life = lives; potato = potatoes; bus = buses | busses",
    ),
    "past": (
        'What is the past tense of "{}"?',
        "go = went; eat = ate; run = ran; see = saw; take = took; write = wrote; give = gave; come = came; buy = bought; "
        "think = thought; find = found; know = knew; sing = sang; swim = swam; fly = flew; speak = spoke; break = broke; "
        "begin = began; drink = drank; sleep = slept; teach = taught; catch = caught; bring = brought; fall = fell; "
        "drive = drove",
    ),
    "numbers": (
        "How many {}?",
        "days are in a week = 7 | seven; months are in a year = 12 | twelve; hours are in a day = 24 | twenty-four; "
        "minutes are in an hour = 60 | sixty; seconds are in a minute = 60 | sixty; legs does a spider have = 8 | eight; "
        "legs does an insect have = 6 | six; legs does a dog have = 4 | four; sides does a triangle have = 3 | three; "
        "sides does a hexagon have = 6 | six; sides does a square have = 4 | four; "
        "days are in a leap year = 366 | three hundred and sixty-six; "
        "letters are in the English alphabet = 26 | twenty-six; continents are there = 7 | seven; "
        "planets are in the solar system = 8 | eight; players are on a soccer team on the field = 11 | eleven; "
        "wheels does a bicycle have = 2 | two; strings does a violin have = 4 | four; arms does an octopus have = 8 | eight; "
        "years are in a century = 100 | one hundred; years are in a decade = 10 | ten; "
        "colors are in a rainbow = 7 | seven; states are in the United States = 50 | fifty; "
        "centimeters are in a meter = 100 | one hundred; grams are in a kilogram = 1000 | 1,000 | one thousand; "
        "degrees are in a right angle = 90 | ninety; days are in September = 30 | thirty; "
        "weeks are in a year = 52 | fifty-two",
    ),
    "science": (
        "{}?",
        "Which planet is closest to the Sun = Mercury; Which planet is the largest in our solar system = Jupiter; "
        "Which planet is known as the Red Planet = Mars; Which planet is famous for its rings = Saturn; "
        "What gas do plants take in from the air = carbon dioxide | CO2; What gas do people need to breathe = oxygen; "
        "What is frozen water called = ice; At what temperature in degrees Celsius does water boil = 100 | hundred; "
        "At what temperature in degrees Celsius does water freeze = 0 | zero; What organ pumps blood through the body = heart; "
        "What is the largest organ of the human body = skin; What is the hardest natural substance = diamond | diamonds; "
        "What is the largest animal on Earth = blue whale | whale; What is the tallest animal = giraffe | giraffes; "
        "What is the fastest land animal = cheetah | cheetahs; What star is closest to Earth = Sun; What do bees make = honey; "
        "What do caterpillars turn into = butterfly | butterflies | moth; What force pulls objects to the ground = gravity; "
        "What is the chemical formula of water = H2O | H₂O; What do we call the study of living things = biology; "
        "What do we call the study of stars and planets = astronomy; "
        "What part of a plant makes food from light = leaves | leaf | chloroplast | chloroplasts; "
        "What is the natural satellite of the Earth = Moon; "
        "What is the process by which plants make food = photosynthesis",
    ),
    "people": (
        "Who {}?",
        "painted the Mona Lisa = Leonardo | da Vinci; painted The Starry Night = van Gogh; painted Guernica = Picasso; "
        "developed the theory of general relativity = Einstein; discovered penicillin = Fleming; "
        "formulated the laws of motion and gravity = Newton; was the first president of the United States = Washington; "
        "was the first person to walk on the Moon = Armstrong; invented the telephone = Bell | Meucci; "
        "invented the printing press in Europe = Gutenberg; sculpted the statue of David in Florence = Michelangelo; "
        "composed the Moonlight Sonata = Beethoven; composed The Four Seasons = Vivaldi; "
        "composed The Magic Flute = Mozart; discovered radium = Curie; proposed evolution by natural selection = Darwin | "
        "Wallace; wrote the Declaration of Independence of the United States = Jefferson; "
        "was the first emperor of Rome = Augustus | Octavian; led India to independence with nonviolent protest = Gandhi; "
        "was the first woman to win a Nobel Prize = Curie",
    ),
    "places": (
        "{}?",
        "What is the longest river in Africa = Nile; What is the highest mountain in the world = Everest; "
        "What is the largest ocean = Pacific; What is the largest hot desert = Sahara; "
        "What is the largest country by area = Russia; In which country is the Eiffel Tower = France; "
        "In which country is the Great Wall = China; In which country is the Taj Mahal = India; "
        "In which country are the pyramids of Giza = Egypt; In which country is Machu Picchu = Peru; "
        "In which city is the Statue of Liberty = New York; In which city is the Colosseum = Rome; "
        "In which city is Big Ben = London; In which city is the Kremlin = Moscow; "
        "What is the smallest country in the world = Vatican; In which ocean is Hawaii = Pacific; "
        "What is the largest continent = Asia; Which river flows through London = Thames; "
        "Which river flows through Paris = Seine; What is the largest island in the world = Greenland",
    ),
}  # fmt: skip


def rows() -> list[Row]:
    """Every question, in a fixed random order."""
    found: list[Row] = []
    for category, (question, table) in FACTS.items():
        for entry in table.split("; "):
            subject, _, answers = entry.partition(" = ")
            place = category in PLACES
            name = f"{'country' if place else category} {subject}"
            cluster = "f" + hashlib.sha256(name.encode()).hexdigest()[:9]
            text = question.format(subject)
            ident = f"llmpatch:fact_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
            found.append(
                {"id": ident, "prompt": text, "kind": "everyday", "source": "llmpatch", "cluster": cluster,
                 "category": category, "answers": answers.split(" | ")}
            )  # fmt: skip
    return sorted(found, key=lambda row: order(row["id"], SALT))


def plain(text: str) -> str:
    """A question's words."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("what's", "what is")))


def side(row: Row) -> str:
    """Train or test, by the cluster."""
    place = int(hashlib.sha256(f"{SALT} {row['cluster']}".encode()).hexdigest()[:8], 16) / 16**8
    return "train" if place < TRAIN else "test"


def main() -> None:
    """Write both files. What the everyday prompts ask verbatim is practised; what they ask in other words is on no side."""
    everyday = [row for name in ("train", "validation") for row in read(DATA / f"prompts/everyday_{name}.jsonl")]
    verbatim = {row["prompt"].strip().lower() for row in everyday}
    in_words = {plain(text) for text in verbatim}
    every = rows()
    asked = {row["cluster"] for row in every if plain(row["prompt"]) in in_words}
    write(DATA / "utility/facts.jsonl", [row for row in every if side(row) == "test" and row["cluster"] not in asked])
    train = [row for row in every if side(row) == "train" or row["prompt"].lower() in verbatim]
    write(DATA / "prompts/facts_train.jsonl", [{k: v for k, v in row.items() if k != "answers"} for row in train])


if __name__ == "__main__":
    main()
