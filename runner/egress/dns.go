package egress

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
)

// Sizes and numbers of DNS messages (RFC 1035, 4).
const (
	dnsHeader  = 12
	maxUDP     = 512  // bytes of an answer by UDP
	maxQuery   = 1024 // bytes; a name has 255 at most, and EDNS options are short
	typeA      = 1
	classIN    = 1
	flagAnswer = 1 << 15
	flagWanted = 1 << 8 // recursion desired
	flagServed = 1 << 7 // recursion available
)

// The answers' codes.
const (
	codeOK       = 0
	codeFormat   = 1
	codeFailure  = 2
	codeNoName   = 3
	codeNotDone  = 4
	codeRefused  = 5
	opcodeMask   = 0xf << 11
	pointToName  = 0xc000 | dnsHeader // a compressed name: the question's
	timeToLive   = 60                 // seconds; short, since the Gateway asks anew each time
	answerLength = 16                 // bytes of one A record with a compressed name
)

// question is what a query asks.
type question struct {
	id     uint16
	wanted bool   // recursion
	name   string // without a dot at its end
	kind   uint16
	raw    []byte // the question section, to be repeated
}

// errQuery says that a query is none. It is answered with codeFormat, or not at all if there is no header.
var errQuery = errors.New("not a DNS query")

// parseQuery reads a query of exactly one question. What follows the question (EDNS) is not looked at.
func parseQuery(msg []byte) (question, error) {
	var q question
	if len(msg) < dnsHeader || len(msg) > maxQuery {
		return q, errQuery
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	q.id, q.wanted = binary.BigEndian.Uint16(msg), flags&flagWanted != 0
	if flags&(flagAnswer|opcodeMask) != 0 || binary.BigEndian.Uint16(msg[4:]) != 1 || binary.BigEndian.Uint32(msg[6:]) != 0 {
		return q, errQuery
	}
	rest := msg[dnsHeader:]
	var labels []string
	for {
		if len(rest) == 0 {
			return q, errQuery
		}
		n := int(rest[0])
		if n == 0 {
			rest = rest[1:]
			break
		}
		if n > 63 || len(rest) < 1+n { // 64 and more is compression, which a question cannot use
			return q, errQuery
		}
		labels = append(labels, string(rest[1:1+n]))
		rest = rest[1+n:]
	}
	if len(rest) < 4 || binary.BigEndian.Uint16(rest[2:]) != classIN {
		return q, errQuery
	}
	q.kind = binary.BigEndian.Uint16(rest)
	q.raw = msg[dnsHeader : len(msg)-len(rest)+4]
	q.name = strings.Join(labels, ".")
	for _, l := range labels {
		if strings.Contains(l, ".") {
			return q, errQuery
		}
	}
	if !validName(q.name) {
		return q, errQuery
	}
	return q, nil
}

// answer makes the reply to q of at most limit bytes; addresses that do not fit are left out, since each alone will do.
func (q question) answer(code int, addrs []netip.Addr, limit int) []byte {
	flags := uint16(flagAnswer | flagServed | code)
	if q.wanted {
		flags |= flagWanted
	}
	if room := (limit - dnsHeader - len(q.raw)) / answerLength; len(addrs) > room {
		addrs = addrs[:max(room, 0)]
	}
	questions := uint16(1)
	if q.raw == nil {
		questions = 0
	}
	msg := binary.BigEndian.AppendUint16(nil, q.id)
	for _, v := range []uint16{flags, questions, uint16(len(addrs)), 0, 0} {
		msg = binary.BigEndian.AppendUint16(msg, v)
	}
	msg = append(msg, q.raw...)
	for _, a := range addrs {
		for _, v := range []uint16{pointToName, typeA, classIN, 0, timeToLive, 4} {
			msg = binary.BigEndian.AppendUint16(msg, v)
		}
		msg = append(msg, a.AsSlice()...)
	}
	return msg
}
