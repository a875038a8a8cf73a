package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// ask answers a query, at once or later. Where too many are being answered, it is lost: who asks by UDP asks again.
func (g *gateway) ask(query []byte, limit int, reply func([]byte)) {
	select {
	case g.questions <- struct{}{}:
	default:
		return
	}
	g.busy.Go(func() {
		defer func() { <-g.questions }()
		if answer := g.answer(query, limit); answer != nil {
			reply(answer)
		}
	})
}

// answer makes the reply to a query, or nil if it is not worth one.
func (g *gateway) answer(query []byte, limit int) []byte {
	q, err := parseQuery(query)
	switch {
	case err != nil && len(query) < dnsHeader:
		return nil
	case err != nil:
		return question{id: q.id, wanted: q.wanted}.answer(codeFormat, nil, limit)
	case !g.policy.mayResolve(q.name):
		g.policy.refused("dns", q.name, dnsPort)
		return q.answer(codeRefused, nil, limit)
	case q.kind != typeA:
		return q.answer(codeOK, nil, limit) // the name exists as far as we know, and has no such record
	}
	code, addrs := g.lookUp(q.name)
	return q.answer(code, addrs, limit)
}

// lookUp resolves a name that may be.
func (g *gateway) lookUp(name string) (code int, addrs []netip.Addr) {
	ctx, cancel := context.WithTimeout(g.ctx, resolveTimeout)
	defer cancel()
	found, err := g.reach.resolve(ctx, canonical(name))
	switch {
	case notFound(err):
		return codeNoName, nil
	case err != nil:
		return codeFailure, nil
	}
	addrs = g.policy.admit(name, found)
	if len(addrs) < len(found) && len(addrs) == 0 {
		g.policy.refused("dns", name, dnsPort)
		return codeRefused, nil
	}
	return codeOK, addrs
}

func notFound(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// questionsByTCP answers the queries of one connection, each with two bytes of length before it (RFC 1035, 4.2.2).
func (g *gateway) questionsByTCP(conn *net.TCPConn) {
	for {
		conn.SetReadDeadline(time.Now().Add(resolveTimeout))
		var head [2]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return
		}
		size := int(binary.BigEndian.Uint16(head[:]))
		if size > maxQuery {
			reset(conn)
			return
		}
		query := make([]byte, size)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer := g.answer(query, 1<<16-1)
		if answer == nil {
			reset(conn)
			return
		}
		conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	}
}
