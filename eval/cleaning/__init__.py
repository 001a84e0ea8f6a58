"""How well cleaning did on photographs of which somebody said whom they show."""
