"""An HTTP/1.1 server as lean as a data port needs: whole bodies in, whole answers out, every size and wait bounded."""
