package control

import (
	"net/http"
	"time"

	"arch.network/agent/control/wire"
)

// access says who may call a resource.
type access int

const (
	public   access = iota // everybody
	readers                // operators, and everybody where reading is open
	signers                // operators, and whoever brings a document that somebody known signed: the handler checks that
	operator               // operators on the socket
)

// route is a resource and a method.
type route struct {
	method, path string // path as in http.ServeMux
	access       access
	handle       func(w http.ResponseWriter, r *http.Request, by caller) error
}

// table is the whole API. openapi.json describes each of them; a test compares.
func (s *Server) table() []route {
	return []route{
		{"GET", "/v1/jobs", readers, s.jobs},
		{"POST", "/v1/jobs", signers, s.submit},
		{"GET", "/v1/jobs/{job}", readers, s.job},
		{"GET", "/v1/jobs/{job}/why", readers, s.why},
		{"GET", "/v1/jobs/{job}/envelope", readers, s.envelope},
		{"GET", "/v1/jobs/{job}/log", readers, s.log},
		{"GET", "/v1/jobs/{job}/outputs/{output}", readers, s.output},
		{"GET", "/v1/jobs/{job}/archive", readers, s.archive},
		{"POST", "/v1/jobs/{job}/{verb}", operator, s.actOnJob},
		{"GET", "/v1/content/{kind}/{digest}", operator, s.hasContent},
		{"PUT", "/v1/content/{kind}/{digest}", operator, s.putContent},
		{"GET", "/v1/quarantine", readers, s.quarantine},
		{"GET", "/v1/events", readers, s.events},
		{"GET", "/v1/status", readers, s.status},
		{"GET", "/v1/samples", readers, s.sampled},
		{"POST", "/v1/node/{verb}", operator, s.actOnNode},
		{"POST", "/v1/directives", signers, s.direct},
		{"GET", "/v1/policy", readers, s.policy},
		{"GET", "/v1/ledger", readers, s.ledger},
		{"GET", "/v1/ledger/entries/{index}", readers, s.entry},
		{"GET", "/v1/ledger/entries/{index}/proof", readers, s.proof},
		{"GET", "/v1/problems", public, s.problems},
		{"GET", "/openapi.json", public, s.openAPI},
		{"GET", "/livez", public, s.livez},
		{"GET", "/readyz", public, s.readyz},
		{"GET", "/metrics", readers, s.metrics},
	}
}

// WitnessPath is below which the node answers as a witness: what to append to its address in a ledger policy.
const WitnessPath = "/witness"

// newMux mounts the table, the ledger's tiles, the witness and the dashboard.
func (s *Server) newMux() *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range s.routes {
		mux.HandleFunc(r.method+" "+r.path, s.endpoint(r))
	}
	missing := func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, wire.New(wire.CodeNotFound, "there is nothing at %q", shorten(r.URL.Path)))
	}
	mux.HandleFunc("GET /v1/", missing)
	if s.o.Tiles != nil {
		tiles := s.mounted(http.StripPrefix("/ledger", s.o.Tiles))
		mux.Handle("GET /ledger/checkpoint", tiles)
		mux.Handle("GET /ledger/tile/", tiles)
	}
	if s.o.Witness != nil { // for everybody: it answers those whose ledgers it knows, and what they send is signed
		mux.Handle("POST "+WitnessPath+"/", http.StripPrefix(WitnessPath, s.o.Witness))
	}
	if s.o.Dashboard != nil {
		mux.Handle("GET /", s.mounted(s.o.Dashboard))
	} else {
		mux.HandleFunc("GET /", missing)
	}
	return mux
}

// route finds the handler of a request; what the mux itself would answer with becomes a problem.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	own := verdict{header: http.Header{}}
	h.ServeHTTP(&own, r)
	switch allow := own.header.Get("Allow"); {
	case own.status == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", allow)
		s.refuse(w, wire.New(wire.CodeMethod, "this resource has only %s", allow))
	default:
		s.refuse(w, wire.New(wire.CodeNotFound, "there is nothing at %q", shorten(r.URL.Path)))
	}
}

// verdict keeps the status and the header of an answer, and nothing of its body.
type verdict struct {
	header http.Header
	status int
}

func (h *verdict) Header() http.Header         { return h.header }
func (h *verdict) WriteHeader(status int)      { h.status = status }
func (h *verdict) Write(p []byte) (int, error) { return len(p), nil }

// endpoint makes a handler of a route.
func (s *Server) endpoint(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		by := s.callerOf(r)
		counted := &statusWriter{ResponseWriter: w}
		start := s.o.Now()
		err := s.allowed(rt.access, by)
		if err == nil {
			err = rt.handle(counted, r, by)
		}
		if err != nil {
			s.fail(counted, r, err)
		}
		s.stats.served(rt, counted.status, s.o.Now().Sub(start))
	}
}

// allowed decides by who asks alone.
func (s *Server) allowed(a access, by caller) error {
	switch {
	case a == public, by.operator, a == signers, a == readers && s.o.Reading:
		return nil
	case a == readers:
		return wire.New(wire.CodeReading, "%s may not read", by.by)
	}
	return wire.New(wire.CodeOperator, "%s is no operator of this node", by.by)
}

// mounted is a foreign handler for readers.
func (s *Server) mounted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.allowed(readers, s.callerOf(r)); err != nil {
			s.fail(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// statusWriter remembers the status, and whether anything was written.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController through.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// forever turns off the deadlines of a connection for a stream, which sets its own for each write.
func forever(w http.ResponseWriter) *http.ResponseController {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // not supported in tests without a connection, which have none
	_ = rc.SetWriteDeadline(time.Time{})
	return rc
}
