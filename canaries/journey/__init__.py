"""The journey: a shopper in Chromium, from the home page to an order, with assertions on what the shopper sees."""
