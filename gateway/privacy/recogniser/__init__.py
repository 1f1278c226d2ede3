"""The bundled recogniser of person names, street addresses, places and organisations."""
