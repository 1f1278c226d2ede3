"""Ordinary sentences, in which a rule about something particular finds nothing."""

SENTENCES = tuple(
    line.strip()
    for line in """
    Could you please send me the minutes of our meeting before Friday?
    The train leaves at 10:45 from platform 3 and takes about two hours.
    I would like to know how to reset the settings of my account.
    She wrote that the weather in October had been unusually warm.
    Please translate the following paragraph into French and keep the tone.
    The function returns a list of integers sorted in descending order.
    for index, value in enumerate(rows[1:]): total += value * 100
    In 2019 the company opened its 12th office, with some 300 people.
    What is the difference between a loan and a mortgage?
    Mix 200 g of flour with two eggs and a pinch of salt, then wait.
    SELECT name, price FROM products WHERE price > 19.99 ORDER BY name;
    Thank you for your patience; we will come back to you within 24 hours.
    The second chapter explains how the heart pumps blood through the body.
    My order has not arrived yet, although it was shipped last week.
    Write a short poem about autumn leaves, without using rhymes.
    The results were not significant (p = 0.08, n = 412).
    Can I bring my dog on the plane, and what does it cost?
    Our team won 3-1, although the other side played better at first.
    Summarise the text below in three bullet points for a manager.
    He said: "I'll be there in ten minutes," and hung up.
    Version 2.4.1 fixes a crash that occurred when the file was empty.
    Die Sitzung beginnt um neun Uhr im großen Saal im zweiten Stock.
    Pouvez-vous m'expliquer comment fonctionne cette machine ?
    El museo abre todos los días excepto los lunes por la mañana.
    Il treno per Milano parte alle otto e arriva prima di mezzogiorno.
    The committee agreed on four of the seven proposals, item 5 being postponed.
    How many calories are there in a bowl of rice with vegetables?
    Add error handling to this script and explain each change briefly.
    {"status": "ok", "items": 3, "next": null}
    The river rises in the mountains and flows into the North Sea.
    You are a helpful assistant. Answer only from the documents given.
    Prices rose by 2.3 percent in the third quarter, less than expected.
    I need a recipe for dinner tonight that takes no more than half an hour.
    Please change my reservation from two to four people, at eight o'clock.
    The patient should rest, drink enough water and avoid heavy meals.
    Click on the button in the upper right corner to save the document.
    We walked along the beach until it was dark and the lights came on.
    Which of these two phones has the better camera for night pictures?
    The contract ends on the last day of March unless it is renewed.
    An apple a day keeps the doctor away, as my grandmother used to say.
    """.strip().splitlines()
)
