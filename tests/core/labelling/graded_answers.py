"""Answers to questions of many kinds, each graded by hand: what `grade` has to agree with.

Every entry is a question's gold answer with the answers that a person calls right and those that a person calls wrong.
The answers are written the way that chat models write: in sentences, with reasoning, emphasis, LaTeX, units, hedges and
refusals.
"""

from __future__ import annotations

from typing import NamedTuple


class Question(NamedTuple):
    """A gold answer (or several that are accepted), right and wrong answers to it, and the prompt where it matters."""

    gold: str | tuple[str, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    prompt: str = "a question"


TEXTS = [
    Question(
        "Santiago",
        (
            "Santiago",
            "santiago.",
            "The capital of Chile is Santiago.",
            "**Santiago** is the capital and largest city of Chile.",
            "Chile's capital? That would be Santiago!",
            "It's Santiago, a city of about 7 million people, founded in 1541.",
            "The capital is not Valparaíso but Santiago.",
            "Many people guess Valparaíso. However, the correct answer is Santiago.",
        ),
        (
            "The capital of Chile is Valparaíso.",
            "It is not Santiago.",
            "It could be either Santiago or Valparaíso.",
            "Santiago or Lima",
            "I'm sorry, but I can't tell whether it is Santiago.",
            "I don't know.",
            "Lima, not Santiago.",
            "Some say Santiago. The answer is Valparaíso.",
            "",
        ),
    ),
    Question(
        "Marie Curie",
        (
            "Marie Curie was the first woman to win a Nobel Prize.",
            "That was Marie Curie (1867-1934).",
            "MARIE CURIE",
            "The answer is: Marie Curie",
        ),
        (
            "Pierre Curie",
            "It was her daughter, Irène Joliot-Curie.",
            "Curie is a unit.",
            "Marie and Pierre shared one.",
        ),
    ),
    Question(
        "The Great Gatsby",
        ("Great Gatsby", "He wrote *The Great Gatsby* in 1925.", 'It is "The Great Gatsby" by F. Scott Fitzgerald.'),
        ("Tender Is the Night", "Great Expectations", "Gatsby's creator wrote many novels."),
    ),
    Question(
        "São Paulo",
        ("Sao Paulo is the most populous city of Brazil.", "São Paulo", "the city of SÃO PAULO, I think"),
        ("Rio de Janeiro", "Sao Tome"),
    ),
    Question(
        "J. K. Rowling",
        ("J.K. Rowling", "The author is J. K. Rowling.", "JK Rowling wrote the series."),
        ("Joanne Harris", "J. R. R. Tolkien", "Rowling's editor"),
    ),
    Question(
        ("United States", "USA", "US", "United States of America"),
        ("The U.S.A. has the largest economy.", "It's the United States.", "the US", "The U.S. of course"),
        ("China", "United Kingdom", "Let us see: China."),
    ),
    Question(
        "York",
        ("York", "The city of York, in the north of England"),
        ("New York", "The answer is New York City.", "Yorkshire"),
    ),
    Question(
        "Isaac Newton",
        ("These are Isaac Newton's laws.", "Sir Isaac Newton", "Isaac Newton's"),
        ("Albert Einstein", "Newton is a unit of force."),
    ),
    Question(
        "red, white and blue",
        ("The flag is red, white, and blue.", "Red, White & Blue", "red white and blue"),
        ("red and white", "red, white and green"),
    ),
    Question(
        "C++",
        ("It is written in C++.", "C++"),
        ("It is written in C.", "C#", "Java"),
    ),
    Question(
        "H2O",
        ("Water is H2O.", "The formula is H₂O.", "H2O, two hydrogen atoms and one oxygen atom"),
        ("CO2", "H2O2", "HO"),
    ),
    Question(
        "北京",
        ("中国的首都是北京。", "北京", "答案:北京"),
        ("上海", "中国的首都是南京。"),
    ),
    Question(
        "mitochondria",
        (
            "The mitochondria are the powerhouse of the cell.",
            "ATP is made in the mitochondria",
            "<think>Could be the nucleus. No: mitochondria.</think>Mitochondria.",
        ),
        (
            "The nucleus",
            "Chloroplasts, rather than mitochondria",
            "<think>It is the mitochondria, I think.</think>The ribosomes.",
        ),
    ),
    Question(
        "cannot be determined",
        ("It cannot be determined from the information given.", "The answer is: cannot be determined"),
        ("The grandfather", "The younger one did it."),
    ),
    Question(
        "World War II",
        ("It took place during World War II.", "world war ii"),
        ("World War I", "The Cold War"),
    ),
    Question(
        "Mount Everest (Sagarmatha)",
        ("Mount Everest", "Mount Everest, also called Sagarmatha, is the highest."),
        ("K2", "Mount Kilimanjaro"),
    ),
]

NUMBERS = [
    Question(
        "She sold 48 in April and 24 in May, so 72 in all.\n#### 72",
        (
            "48 / 2 = 24 and 48 + 24 = 72.",
            "#### 72",
            "The answer is 72.",
            "She sold 48 clips in April and half as many, 24, in May.\nAltogether she sold **72** clips.",
            r"Total: $48 + 24 = 72$, so \boxed{72}",
            "First, 24 in May.\nThen 48 + 24 = 72 clips altogether in April and May.",
            "72.0",
            "Final answer: 72 clips",
        ),
        (
            "48 + 12 = 60",
            "The answer is 24. (Not 72.)",
            "She sold 72 in April, so 108 in all.",
            r"\boxed{96}",
            "I cannot solve this.",
            "#### 27",
            "a lot",
        ),
    ),
    Question(
        "$1,234.50",
        ("1234.5", "It costs $1,234.50.", "1,234.50 dollars", "USD 1234.50", "1.234,50", "The total is \\$1,234.50."),
        ("$1,234.05", "€1,234.50", "12,345.0", "about a thousand dollars"),
    ),
    Question(
        "1000000",
        (
            "1,000,000",
            "one million",
            "1 million",
            "1 000 000",
            "1.000.000",
            "10^6",
            "1e6",
            "$10^{6}$",
            "There are 1'000'000.",
        ),
        ("100,000", "1 billion", "1,000", "10^5"),
    ),
    Question(
        "8849",
        (
            "Mount Everest is 8,849 metres tall.",
            "8849 m (29,032 ft)",
            "Its height is 8,849 m, as measured in 2020.",
            "8.849 km",
        ),
        ("8,848 m", "It is 29,032 ft tall.", "It was measured in 2020."),
    ),
    Question(
        "5 km",
        (
            "5 kilometers",
            "5km",
            "5,000 m",
            "The distance is 5 km.",
            "5",
            "It is 5 km (3.1 miles).",
            "3.1 miles, i.e. 5 km",
        ),
        ("5 miles", "50 km", "5 m", "It takes 5 hours."),
    ),
    Question(
        "90 minutes",
        ("An hour and a half, that is 90 minutes.", "90 min", "1.5 hours", "90"),
        ("90 seconds", "60 minutes", "9 minutes"),
    ),
    Question(
        "3/4",
        ("0.75", "3/4", r"\frac{3}{4}", r"The probability is $\dfrac{3}{4}$.", "75%", "6/8", "¾", r"\boxed{\frac34}"),
        ("4/3", "0.34", "3.4", "7.5%", r"\frac{1}{4}", "It is likely."),
    ),
    Question(
        "2 1/2",
        ("2.5", "5/2", "2½", r"2\frac{1}{2} cups", "two and a half? In digits: 2.5"),
        ("1/2", "2", "21/2"),
    ),
    Question(
        "20%",
        ("20 percent", "0.2", "20", "It rose by 20%.", "20 per cent of them", "1/5"),
        ("2%", "80%", "0.02", "it rose"),
    ),
    Question(
        "-7",
        ("x = -7", "The solution is −7.", "minus 7", "negative seven? -7", r"$x = -7$"),
        ("7", "-17", "x = 7, since 14 - 7 = 7"),
    ),
    Question(
        "7",
        (
            "There are seven continents.",
            "Seven",
            "7",
            "There are 7 continents: Africa, Asia, and five others.",
            "**7**",
        ),
        ("six", "There are five.", "17", "Between five and six"),
    ),
    Question(
        "seven",
        ("7", "There are seven days in a week."),
        ("ten", "8 days"),
    ),
    Question(
        "1969",
        (
            "1969",
            "It was in 1969.",
            "Humans first landed on the Moon on July 20, 1969.",
            "Apollo 11 landed in 1969, with 3 men on board.",
            "1969-07-20",
        ),
        ("1968", "In 1986", "Apollo 11", "On July 20"),
    ),
    Question(
        "37 °C",
        ("37 degrees Celsius", "37°C (98.6°F)", "It is about 37 °C.", "98.6 °F, or 37 °C", "37"),
        ("37 °F", "98.6 °F", "37.5 °C"),
    ),
    Question(
        "3.14",
        ("3.14159", "Pi is roughly 3.14.", "3.142 to three decimals"),
        ("3.41", "3", "22/3"),
    ),
    Question(
        "3 × 10^8 m/s",
        ("3e8 m/s", r"$3 \times 10^8$ m/s", "300,000,000 meters per second", "300,000 km/s", "3×10⁸"),
        ("3 × 10^6 m/s", "300,000 m/s"),
    ),
    Question(
        "12 apples",
        ("A dozen.", "12", "twelve apples", "He has 12 apples left."),
        ("11 apples", "He has none."),
    ),
    Question(
        "4.6 billion years",
        ("The Earth is about 4.6 billion years old.", "4,600,000,000 years", "4.6 billion"),
        ("4.6 million years", "46 billion years"),
    ),
]

DATES = [
    Question(
        "July 20, 1969",
        (
            "20 July 1969",
            "On July 20th, 1969, Neil Armstrong stepped onto the Moon.",
            "1969-07-20",
            "The date was 20/07/1969.",
            "It happened on the 20th of July, 1969.",
            "Sunday, July 20, 1969",
            "7/20/1969",
            "Jul. 20, 1969",
        ),
        ("July 21, 1969", "July 1969", "1969", "20 July 1996", "In the summer of 1969"),
    ),
    Question(
        "1945-05-08",
        ("May 8, 1945", "8 May 1945 (V-E Day)", "The war in Europe ended on May 8th, 1945."),
        ("May 9, 1945", "8 May 1946", "In May"),
    ),
    Question(
        "March 1876",
        ("March 1876", "March 10, 1876", "It was patented in March 1876."),
        ("1876", "March 1867", "May 1876"),
    ),
    Question(
        "December 25",
        ("25 December", "Christmas is on December 25th.", "the twenty-fifth of December"),
        ("December 24", "25 November", "in winter"),
    ),
]

YES_NO = [
    Question(
        "yes",
        (
            "Yes.",
            "Yes, it is.",
            "yes",
            "The answer is yes.",
            "Whales breathe air and nurse their young. So, yes.",
            "**Yes** - whales are mammals.",
            "True",
            "That's correct.",
        ),
        ("No.", "No, whales are fish.", "The answer is no.", "I am not sure.", "False", "It depends."),
    ),
    Question(
        "No",
        (
            "No, it isn't.",
            "Answer: No",
            "This is false.",
            "There is a common belief that it is so. The correct answer is no.",
            r"\boxed{\text{No}}",
            "That is not true.",
        ),
        ("Yes, no doubt.", "Yes", "There is no evidence either way.", "That's true.", "The statement is correct."),
    ),
    Question(
        "true",
        ("True", "The statement is true.", "Yes, the statement holds.", "Answer: **True**"),
        ("False.", "The statement is not true.", "The claim is false because the tides follow the Moon."),
    ),
]

CAPITALS = "What is the capital of France?\nA) London\nB) Paris\nC) Rome\nD) Madrid"

CHOICES = [
    Question(
        "B",
        (
            "B",
            "B.",
            "(B)",
            "B) Paris",
            "The answer is B.",
            "The correct answer is (B) Paris.",
            "**B**",
            "Answer: B",
            r"\boxed{B}",
            r"$\boxed{\text{B}}$",
            "I would go with option B.",
            "B is correct, because Paris is the capital.",
            "A is wrong: London is in England. C and D are wrong as well. So the answer is B.",
            "Option A is incorrect. Option B is the right one.",
            "Paris",
            "It is Paris.",
            "The right choice is **B) Paris**.",
            "Let me think step by step.\nLondon is not in France.\n\nB",
        ),
        (
            "A",
            "The answer is C.",
            "(D)",
            "London",
            "B or C",
            "I first thought of B, but the answer is C.",
            "None of them.",
            "I cannot answer that.",
            "It is Rome.",
            "Both A and B",
        ),
        CAPITALS,
    ),
    Question(
        "Paris",
        ("B", "The answer is B.", "Paris", "It is Paris, option B."),
        ("A", "The answer is (C).", "Rome"),
        CAPITALS,
    ),
    Question(
        "(D)",
        (
            "The answer is D",
            "d is tempting... (d)",
            "Looking at all of the options, the best one is D.",
            "After eliminating A, B and C, I choose D.",
        ),
        ("The answer is a matter of taste.", "A", "It is not D. The answer is A."),
    ),
]

FORMULAS = [
    Question(
        r"\frac{\pi}{2}",
        (r"The angle is $\frac{\pi}{2}$.", r"\boxed{\dfrac{\pi}{2}}", "π/2", "pi/2"),
        (r"\frac{\pi}{3}", "π", r"\boxed{2\pi}"),
    ),
    Question(
        "x^2 + 1",
        ("f(x) = x^2+1", r"So $f(x) = x^{2} + 1$.", r"\boxed{x^2+1}"),
        ("x^2 - 1", "x^2 + 1 + y", "x^2 + 10", "x^3+1"),
    ),
    Question(
        r"2\sqrt{3}",
        (r"The length is $2\sqrt{3}$.", "2√3", "2*sqrt(3)"),
        (r"3\sqrt{2}", r"\sqrt{3}", r"12\sqrt{3}"),
    ),
    Question("x = 5", ("5", "x=5", "The solution is $x = 5$.", r"\boxed{5}"), ("x = -5", "x = 15", "y is unknown")),
    Question("(3, 4)", ("The point is (3, 4).", "(3,4)", r"\boxed{(3, 4)}"), ("(4, 3)", "(3, 5)")),
]

EXACT = [
    Question("Paris", ("Paris", "paris!", " PARIS "), ("It is Paris.", "Paris, France", "")),
    Question("42", ("42", "42."), ("The answer is 42.", "42 apples", "forty-two")),
]

MIXED = [
    Question(
        "Amazon River",
        (
            "The Amazon River",
            "It is the Amazon River, which flows through Peru and Brazil.",
            "amazon river",
            "- Amazon River",
            "1. Amazon River",
            "```\nAmazon River\n```",
            '{"answer": "Amazon River"}',
            "The river you are looking for is the **Amazon River**.",
            "The longest is either the Nile or, by some measures, the Amazon. The answer: Amazon River",
        ),
        ("Amazon", "The Nile", "Amazon rainforest"),
    ),
    Question(
        "photosynthesis",
        ("This process is called photosynthesis.", "Photosynthesis", "It's photosynthesis (from Greek phōs)."),
        ("respiration", "chemosynthesis"),
    ),
    Question(
        "William Shakespeare",
        ("Hamlet was written by William Shakespeare.", "William Shakespeare wrote Hamlet around 1600."),
        ("Christopher Marlowe", "I am not familiar with that play."),
    ),
    Question("dolphin", ("Dolphins", "a dolphin", "The animal is the dolphin."), ("whale", "porpoise")),
    Question("Au", ("Au", "The chemical symbol for gold is Au.", "**Au** (from Latin aurum)"), ("Ag", "Go", "Gd")),
    Question("O", ("The symbol is O.", "O"), ("Ox", "N")),
    Question(
        "blue",
        ("The sky is blue.", "Blue!", "It appears blue because of Rayleigh scattering."),
        ("green", "It isn't blue."),
    ),
    Question("Tokyo, Japan", ("Tokyo, Japan", "It is in Tokyo, Japan."), ("Kyoto, Japan", "Osaka")),
    Question(
        "Leonardo da Vinci",
        (
            "The Mona Lisa was painted by Leonardo da Vinci between 1503 and 1519.",
            "Leonardo Da Vinci",
            "It was the Italian artist Leonardo da Vinci.",
        ),
        ("Michelangelo", "Raphael, not Leonardo da Vinci", "I'm unable to determine that."),
    ),
    Question(
        "Pacific Ocean",
        (
            "The largest ocean is the Pacific Ocean.",
            "the pacific ocean",
            "It's the Pacific Ocean—covering 63 million square miles.",
        ),
        ("Atlantic Ocean", "The Indian Ocean"),
    ),
    Question(
        "42",
        (
            "42",
            "The answer to life is 42.",
            "Forty-two",
            "forty two",
            "It's 42!",
            "42.00",
            "x=42",
            "= 42",
            "The result is 42",
            "**Answer:** 42",
            "Answer:\n\n42",
        ),
        ("24", "41", "-42", "4.2", "The answer is 43, not 42.", "It's not 42.", "42 or 43"),
    ),
    Question("0.1", ("0.1", "1/10", ".1", "10%", "0.10", "one tenth", "1e-1", "10⁻¹"), ("0.01", "1", "10")),
    Question(
        "1,500",
        ("1500", "1,500", "1.5k", "1.5 thousand", "fifteen hundred", "about 1,500 people"),
        ("15,000", "150", "1,050"),
    ),
    Question(
        "€3.5 million", ("€3,500,000", "3.5 million euros", "3.5 million", "EUR 3.5M"), ("$3.5 million", "€3.5 billion")
    ),
    Question(
        "100 °C",
        ("100 degrees Celsius", "Water boils at 100°C at sea level.", "100 C", "212°F (100°C)", "100"),
        ("212 °F", "100 K", "0 °C"),
    ),
    Question("60 mph", ("60 miles per hour", "60mph", "60", "The speed is 60 mph."), ("60 km/h", "60 m/s")),
    Question("2.5 kg", ("2,500 g", "2.5 kilograms", "2500 grams", "2.5kg"), ("2.5 g", "2.5 lb", "25 kg")),
    Question("2 hours", ("120 minutes", "2 hrs", "two hours", "It takes 2 hours."), ("2 minutes", "3 hours")),
    Question("1/3", ("0.333", "0.33", "1/3", "one third", "33.33%", "approximately 0.3333"), ("0.3", "3", "1/4")),
    Question("-1/2", ("-\\frac{1}{2}", "-0.5", "\\boxed{-\\frac{1}{2}}", "\\frac{-1}{2}", "-1/2"), ("1/2", "-2")),
    Question(
        "15",
        (
            "3 × 5 = 15",
            "He needs 15 more.",
            "15 in total",
            "They have fifteen.",
            "Step 1: 3 boxes.\nStep 2: 5 each.\nSo there are 15.",
            "1. There are 3 boxes\n2. Each has 5\n3. 3*5=15",
            "Sam has 3 boxes with 5 balls each, which makes 15 balls.",
        ),
        ("3 boxes with 5 each: 8", "He needs 15 - 3 = 12", "Sam has 15 balls and loses 3, so he has 12."),
    ),
    Question(
        "2010-01-05",
        ("January 5, 2010", "5 January 2010", "01/05/2010", "5.1.2010", "Jan 5th, 2010", "on the 5th of January 2010"),
        ("2010-05-11", "January 6, 2010", "5 Jan 2011"),
    ),
    Question(
        "4 July 1776",
        (
            "July 4th, 1776",
            "4 July, 1776",
            "Independence was declared on July 4, 1776.",
            "1776-07-04",
            "07/04/1776",
            "July the 4th, 1776",
        ),
        ("July 2, 1776", "4 June 1776", "1776"),
    ),
    Question(
        "yes",
        (
            "Yes, absolutely.",
            "Absolutely!",
            "yes it does",
            "I'd say yes.",
            "Yes — it is.",
            "The answer is definitely yes",
            "Correct.",
            "Indeed, it is.",
            "Of course.",
        ),
        ("Nope", "Absolutely not.", "No way.", "Not at all.", "Definitely not", "I don't think so."),
    ),
    Question(
        "no",
        (
            "no",
            "No, that is a myth.",
            "The answer is no, because ...",
            "False. It orbits the Sun.",
            "Not at all.",
            "Of course not.",
            "Absolutely not!",
            "The statement is incorrect.",
        ),
        ("yes", "Yes, there is no doubt.", "True", "Absolutely."),
    ),
    Question(
        "C",
        (
            "C",
            "c",
            "C)",
            "(c)",
            "Answer: (C)",
            "The best answer is C.",
            "Therefore, the answer is option C.",
            "I think it's C",
            "C is the correct answer.",
            "答案是C",
            "Correct answer: C. Because...",
            "**Answer: C**",
            "The answer is (C) because A and B are wrong.",
            "Option C",
            "[C]",
            "C: 42",
            "the answer is c.",
            "My choice would be C.",
        ),
        ("B", "The answer isn't C, it's B.", "A and C", "(A)", "Not C.", "option D"),
    ),
    Question(
        ("car", "automobile"), ("automobile", "It's an automobile.", "a car", "cars"), ("bicycle", "carriage", "cart")
    ),
    Question(
        "Barack Obama",
        ("Barack Obama was the 44th president.", "President Barack Obama", "Barack Obama's"),
        ("Joe Biden", "Michelle Obama", "George W. Bush, before Barack Obama? No, Donald Trump."),
    ),
    Question("Pb", ("Pb", "The symbol for lead is Pb (plumbum)."), ("Sn", "pub")),
    Question("ice cream", ("ice cream", "ice-cream", "Icecream"), ("cream", "ice")),
    Question("print", ("The function is `print()`.", "print", "Use the print function."), ("printf", "echo")),
    Question(
        "Romeo and Juliet",
        ("Romeo and Juliet", "Romeo & Juliet", '"Romeo and Juliet" by Shakespeare', "ROMEO AND JULIET"),
        ("Romeo", "Juliet and Romeo"),
    ),
    Question("x^2-4x+4", ("$x^2 - 4x + 4$", "x^2-4x+4", "(x-2)^2 = x^2 - 4x + 4"), ("x^2+4x+4", "x^2-4x")),
    Question(
        "\\sqrt{2}",
        ("\\sqrt{2}", "√2", "$\\sqrt2$", "sqrt(2)", "The answer is \\(\\sqrt{2}\\)."),
        ("2", "\\sqrt{3}", "2\\sqrt{2}"),
    ),
    Question("[0, \\infty)", ("$[0, \\infty)$", "[0, ∞)"), ("(0, \\infty)", "[0, 1)")),
    Question(
        "Mercury",
        ("Mercury is the closest planet to the Sun.", "The planet Mercury."),
        ("Venus", "Mars", "Venus is closer than Mercury is? No: Venus."),
    ),
    Question(
        "George Washington",
        ("George Washington (1789–1797)", "The first U.S. president was George Washington."),
        ("Thomas Jefferson", "John Adams, who followed George Washington?"),
    ),
    Question("3:30 PM", ("3:30 pm", "The train leaves at 3:30 p.m."), ("3:30 am", "4:30 PM")),
    Question("1990s", ("In the 1990s", "the 1990s"), ("1980s", "1990")),
    Question(
        "Berlin",
        ("Die Hauptstadt von Deutschland ist Berlin.", "Berlín", "La capital es Berlin."),
        ("Bonn", "Hamburg", "No es Berlin"),
    ),
    Question(
        "Eiffel Tower",
        ("It's the Eiffel Tower, built in 1889.", "Eiffel Tower", "The Eiffel Tower isn't only tall but beautiful."),
        ("Big Ben", "Tower of London"),
    ),
    Question(
        "3",
        ("three", "There are three.", "3 (three)", "III? That is 3.", "The triangle has three sides, 3 in all"),
        ("4", "thirty", "There are four sides, not three."),
    ),
]

WORDS = [
    Question("1/2", ("one half", "half", "a half", "It is half."), ("two", "a third")),
    Question("2/3", ("two thirds", "two-thirds of them", "66.67%"), ("one third", "2/5")),
    Question("2.5", ("two and a half", "two and a half hours"), ("two", "three and a half")),
    Question("10%", ("ten percent", "ten per cent"), ("ten percent? No, twenty percent", "one percent")),
    Question("105", ("one hundred and five", "a hundred and five"), ("one hundred", "one hundred and fifteen")),
]

GASES = "Which gas do plants absorb?\nA. Oxygen\nB. Carbon dioxide\nC. Nitrogen\nD. Helium\nAnswer:"
FURTHER = [
    Question(
        "Neil Armstrong",
        (
            "The first person to walk on the Moon was Neil Armstrong, on July 20, 1969.",
            "Neil Armstrong, American astronaut.",
            "1) Neil Armstrong",
            "I believe it was Neil Armstrong.",
            "Astronaut Neil A. Armstrong? Neil Armstrong.",
        ),
        (
            "Buzz Aldrin",
            "Yuri Gagarin was first, and Neil Armstrong was not.",
            "It wasn't Neil Armstrong, it was Buzz Aldrin.",
        ),
    ),
    Question(
        "gravity",
        (
            "Gravity.",
            "It is due to gravity",
            "The force of gravity keeps us on the ground.",
            "Gravitational pull, i.e. gravity",
        ),
        ("magnetism", "friction"),
    ),
    Question(
        "100",
        (
            "There are 100 centimeters in a meter.",
            "100 cm",
            "One hundred",
            "a hundred",
            "1 m = 100 cm",
            "It's 100, because centi means hundredth.",
        ),
        ("1000", "10", "There are 10 decimeters in a meter."),
    ),
    Question(
        "206",
        (
            "An adult human has 206 bones.",
            "206 bones",
            "Adults have 206 bones, while babies have around 300.",
            "Babies are born with about 300 bones, but adults have 206.",
        ),
        ("208", "300 bones at birth"),
    ),
    Question(
        "299,792,458 m/s",
        ("299792458 m/s", "299,792,458 meters per second", "299 792 458 m/s", "about 299,792.458 km/s"),
        ("300,000 km/h", "186,282 mph"),
    ),
    Question(
        "$45",
        (
            "The total cost is $45.",
            "$45.00",
            "45 dollars",
            "45",
            "She pays 3 × $15 = $45.",
            "Her change is $5, so she paid $45.",
        ),
        ("$54", "$4.50", "She pays $45 less $10, so $35."),
    ),
    Question(
        "25%",
        ("25%", "a quarter", "one quarter", "0.25", "25 percent of the students", "1/4"),
        ("75%", "2.5%", "25 students of 50"),
    ),
    Question("-3", ("x=-3", "The answer is -3", "negative three", "−3", "$-3$"), ("3", "x = 3 or x = -4")),
    Question("0", ("0", "zero", "The limit is 0.", "It equals zero."), ("1", "undefined", "infinity")),
    Question(
        "1066",
        ("The Battle of Hastings was fought in 1066.", "1066 AD", "October 14, 1066", "in the year 1066"),
        ("1166", "1660", "14 October"),
    ),
    Question(
        "1914",
        ("World War I began in 1914 and ended in 1918.", "1914", "It started on 28 July 1914."),
        ("1918", "1939", "It lasted from 1915 to 1918."),
    ),
    Question("Au", ("Au (gold)", "'Au'", 'Gold has the symbol "Au".'), ("AU$",)),
    Question(
        "B",
        (
            "B. Carbon dioxide",
            "Carbon dioxide",
            "Carbon dioxide (CO2)",
            "b",
            "Answer: B. Carbon dioxide",
            "The answer is B: Carbon dioxide.",
            "Plants absorb carbon dioxide and release oxygen, so the answer is B.",
            "Plants absorb carbon dioxide.",
            "\n\nB\n\nExplanation: plants use CO2.",
            "Sure! The correct answer is:\n\nB. Carbon dioxide",
            "I'd say (B), carbon dioxide",
            "**Answer:** B",
            "The answer is option B) carbon dioxide",
            "Option B",
            "It's B.",
        ),
        (
            "A. Oxygen",
            "C",
            "Oxygen",
            "Helium",
            "I think the answer is D.",
            "A, because oxygen is needed",
            "Not B, but A",
            "Answer: A. Oxygen",
            "None of the above",
        ),
        GASES,
    ),
    Question("D", ("D", "The answer is D", "D. Helium", "Helium is the answer, so D."), ("B", "A"), GASES),
    Question(
        "True",
        ("True", "true.", "This statement is true.", "Yes, that's true.", "The statement is **true**."),
        ("False", "This is not true.", "Untrue", "The statement is false."),
    ),
    Question(
        "no",
        ("No, sharks are fish.", "Sharks are not mammals. No.", "Nope.", 'The answer is "no".', "No"),
        ("Yes, they are.", "Yes and no"),
    ),
    Question(
        "yes",
        ("Yes", "Yes! Water is wet.", "yes.", "Answer: yes", "The short answer is yes.", "It does. Yes."),
        ("no", "Probably not", "No, yes is wrong"),
    ),
    Question(
        "14 July 1789",
        (
            "The Bastille was stormed on July 14, 1789.",
            "14.07.1789",
            "14/7/1789",
            "Tuesday, 14 July 1789",
            "1789-07-14",
            "July 14th 1789",
        ),
        ("July 4, 1789", "14 July", "14 July 1798"),
    ),
    Question(
        "2024-02-29",
        ("Feb 29, 2024", "February 29th, 2024", "29 February 2024", "29 Feb. 2024"),
        ("March 1, 2024", "February 28, 2024"),
    ),
    Question(
        "Vincent van Gogh",
        ("Vincent van Gogh painted The Starry Night in 1889.", "Vincent Van Gogh", "vincent van gogh"),
        ("Claude Monet", "Paul Gauguin painted it, not Vincent van Gogh."),
    ),
    Question(
        "the heart",
        ("The heart", "heart", "It's the heart that pumps blood.", "Your heart."),
        ("the lungs", "the brain"),
    ),
    Question(
        "Beijing",
        ("Beijing", "The capital of China is Beijing (北京).", "Beijing, formerly known as Peking"),
        ("Shanghai", "Nanjing"),
    ),
    Question("O'Neill", ("Eugene O'Neill", "O’Neill", "The author is O'Neill."), ("Neil", "Miller")),
    Question("mother-in-law", ("mother in law", "His mother-in-law", "mother-in-law."), ("mother", "sister-in-law")),
    Question(
        "Côte d'Ivoire", ("Cote d'Ivoire", "Côte d’Ivoire", "It is in Côte d'Ivoire (Ivory Coast)."), ("Ghana", "Ivory")
    ),
    Question("3x + 2", ("3x+2", "$3x + 2$", "f'(x) = 3x + 2", "The derivative is 3x + 2."), ("3x - 2", "2x+3", "3x")),
    Question("x^2", ("x^2", "x²", "$x^2$", "The answer is \\(x^2\\)"), ("x^3", "2x", "x^2+1")),
    Question("\\frac{a}{b}", ("\\frac{a}{b}", "a/b", "$\\dfrac{a}{b}$"), ("b/a", "ab")),
    Question(
        "\\dfrac{5}{3}", ("5/3", "\\frac{5}{3}", "1 2/3", "1.67", "1.666...", "$x=\\frac{5}{3}$"), ("3/5", "1.6", "5.3")
    ),
    Question(
        "9.8 m/s^2",
        ("9.8 m/s²", "9.8 m/s^2", "9.8 meters per second squared", "About 9.8 m/s^2 downward"),
        ("8.9 m/s^2", "98 m/s²"),
    ),
    Question("72 beats per minute", ("72 beats per minute", "72 bpm", "72"), ("27 bpm",)),
    Question("two", ("Two", "2", "There are two.", "A pair: two of them"), ("three", "one", "twelve")),
    Question(
        "Mars",
        (
            "Mars is known as the Red Planet.",
            "mars",
            "It's Mars!",
            "The Red Planet is Mars, the fourth planet from the Sun.",
        ),
        ("Venus", "Jupiter", "Marshmallow"),
    ),
    Question(
        "50 states",
        ("There are 50 states in the US.", "50", "fifty states", "The USA has 50 states and 1 federal district."),
        ("51", "48 contiguous states"),
    ),
    Question(
        "Jane Austen",
        ("'Pride and Prejudice' is a novel by Jane Austen.", "Jane Austen (1813)"),
        ("Charlotte Brontë", "Emily Bronte", "Unknown"),
    ),
    Question(
        "8 hours",
        ("8 hours", "Eight hours", "480 minutes", "It takes them 8 hours to finish.", "8h"),
        ("8 minutes", "80 hours", "6 hours"),
    ),
    Question(
        "64",
        ("2^6 = 64", "64", "sixty-four", "8 squared is 64.", "8*8=64", "Area = 8 × 8 = 64 square units", "64 cm²"),
        ("46", "16", "The area is 8 times 8, that is 32"),
    ),
]

# What an answer says about others than its own: comparisons, what people think, what is ruled out.
CONTRASTS = [
    Question(
        "Mercury",
        (
            "The closest planet is Mercury, not Venus.",
            "It is none other than Mercury.",
            "Many people think it is Venus, but it is Mercury.",
            "Nothing but Mercury fits.",
        ),
        (
            "Mercury would be wrong.",
            "You might think Mercury, but it's Venus.",
            "Anything but Mercury.",
            "Venus is hotter than Mercury.",
            "Venus, though many people say Mercury.",
            "It is no longer Mercury.",
            "Venus rather than Mercury",
        ),
    ),
    Question(
        "William Shakespeare",
        ("People say William Shakespeare, and they are right.", "I would say William Shakespeare."),
        (
            "Some attribute it to William Shakespeare, but it was Christopher Marlowe who wrote it.",
            "Ben Jonson, a contemporary of William Shakespeare",
        ),
    ),
    Question(
        "photosynthesis",
        ("It is photosynthesis, the reverse of respiration.",),
        ("It is called respiration, the reverse of photosynthesis.", "respiration, the opposite of photosynthesis"),
    ),
    Question("Mount Everest", ("Mt. Everest", "Mt Everest, 8,849 m"), ("K2", "Mount Everett")),
    Question("St. Petersburg", ("Saint Petersburg", "St Petersburg, Russia"), ("Moscow", "Petersburg, Virginia")),
    Question("Newton's second law", ("Newton's 2nd law", "This is Newton’s Second Law."), ("Newton's third law",)),
    Question("2nd World War", ("the Second World War",), ("First World War", "the 12th World War")),
    Question("twenty-one", ("21", "twenty one", "There are 21."), ("twelve", "20", "twenty", "one")),
    Question("one hundred and five", ("105", "one hundred five"), ("150", "five")),
    Question("two thirds", ("2/3", "two-thirds", "0.667"), ("1/3", "3/2")),
    Question("Seven Samurai", ("Kurosawa's Seven Samurai",), ("The Magnificent Seven", "7")),
    Question(r"\boxed{12}", ("12", "The answer is 12."), ("21",)),
    Question(r"\boxed{\frac{1}{2}}", ("1/2", "0.5"), ("2",)),
    Question(r"\boxed{B}", ("B", "The answer is (B)."), ("C",)),
    Question("no", ("No – this is a myth.", "No – never."), ("Yes – it does.",)),
    Question(
        "D",
        ("A is wrong, B is wrong, C is wrong. Therefore D.", "Neither A nor B nor C is possible, which leaves D.",
         "Only D works; A, B and C fail."),
        ("I rule out D, so A.", "Only A works; D fails."),
        prompt="Which?\nA) red\nB) green\nC) blue\nD) white",
    ),
]  # fmt: skip

BY_KIND = {
    "text": TEXTS,
    "number": NUMBERS,
    "date": DATES,
    "yes or no": YES_NO,
    "choice": CHOICES,
    "formula": FORMULAS,
    "number in words": WORDS,
    "mixed": MIXED,
    "further": FURTHER,
    "contrast": CONTRASTS,
}

# (gold, answer) that `grade` calls otherwise than a person, and why.
KNOWN_DIFFERENCES: dict[tuple[str, str], str] = {
    ("25%", "25 students of 50"): "a number without a percent sign may be the one before the sign",
    ("Au", "AU$"): "case does not count",
    ("George Washington", "John Adams, who followed George Washington?"): "a question alone is taken for a guess",
    ("Berlin", "No es Berlin"): "denials are understood in English only",
}
