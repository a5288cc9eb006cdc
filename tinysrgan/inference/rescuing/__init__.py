"""How a picture's QR codes are rescued: see ``search``, which calls the rest."""
