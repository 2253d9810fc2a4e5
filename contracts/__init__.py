"""What separately deployed programs must agree on, byte for byte. Nothing else lives here."""
