"""What a gateway is to serve, where that is said, and how it is brought about while requests are answered."""
