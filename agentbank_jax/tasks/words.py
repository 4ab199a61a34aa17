"""Words that the generated tasks draw from: few and short, so that a small vocabulary holds them all."""

NAMES = ("Anna", "Ben", "Carl", "Dana", "Emma", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kate", "Leo",
         "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Umar", "Vera", "Will", "Yara", "Zoe")
