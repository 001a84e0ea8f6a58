"""How well detectors and recognisers do on photographs whose people are known."""
