"""The demonstration's client side: a picture to ask about, the model card's call, and a readable trajectory."""
