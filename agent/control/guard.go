package control

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"arch.network/agent/control/wire"
)

// Handler is the whole server for one connection's requests: what comes through it, may.
func (s *Server) Handler() http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, wire.New(wire.CodeOrigin, "a page of another site sent this"))
	}))
	inner := origin.Handler(http.HandlerFunc(s.route))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		if !s.callerOf(r).local && !s.ours(r.Host) {
			s.refuse(w, wire.New(wire.CodeHost, "%q is no name of this node", shorten(r.Host)))
			return
		}
		if r.Method == http.MethodOptions || r.Method == http.MethodConnect || r.Method == http.MethodTrace {
			s.refuse(w, wire.New(wire.CodeMethod, "this server has GET, HEAD, POST and PUT"))
			return
		}
		most := int64(wire.MaxBody)
		if r.Method == http.MethodPut { // content; only operators' is read
			most = wire.MaxContent
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
		inner.ServeHTTP(w, r)
	})
}

// protect sets what holds for every answer; the dashboard loosens the policy for its own pages.
func protect(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox")
	h.Set("Cache-Control", "no-cache")
}

// ours reports whether a Host header names this node. A numeric address always does: only names can be pointed at it by a stranger's
// DNS.
func (s *Server) ours(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return strings.EqualFold(host, "localhost") || slices.ContainsFunc(s.o.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// shorten keeps an error short, whatever was sent.
func shorten(text string) string {
	const most = 100
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
