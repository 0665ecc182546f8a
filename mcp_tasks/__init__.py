"""Commands that outlive the client, the call and the server that started them."""
