"""A DNS server that says which name servers a zone has."""

from __future__ import annotations

import socketserver
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class DnsServer:
    """Answers questions for name servers; `zones` has those of each zone, empty for one that is broken.

    `address` is how Decant names it: the address and, after #, the port.
    """

    def __init__(self) -> None:
        self.zones: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.rcode: dns.rcode.Rcode | None = None
        """What is answered to everything, instead of an answer."""
        outer = self

        class Handler(socketserver.DatagramRequestHandler):
            def handle(self) -> None:
                self.wfile.write(outer.answer(self.rfile.read()))

        self.server = socketserver.UDPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1#{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, packet: bytes) -> bytes:
        """Return the answer to one question."""
        question = dns.message.from_wire(packet)
        name = question.question[0].name.to_text().rstrip(".")
        self.asked.append(name)
        reply = dns.message.make_response(question)
        if self.rcode is not None:
            reply.set_rcode(self.rcode)
        elif name not in self.zones:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif not self.zones[name]:
            reply.set_rcode(dns.rcode.SERVFAIL)
        else:
            hosts = [f"{host}." for host in self.zones[name]]
            reply.answer.append(dns.rrset.from_text_list(f"{name}.", 300, "IN", "NS", hosts))
        return reply.to_wire()

    def close(self) -> None:
        """Answer nothing any more."""
        self.server.shutdown()
        self.server.server_close()
