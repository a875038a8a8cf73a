package control

import (
	"net/http"

	"arch.network/agent"
	"arch.network/agent/control/wire"
	"arch.network/attest/digest"
)

func (s *Server) status(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	status, err := s.o.Node.Status(r.Context())
	if err != nil {
		return err
	}
	if status.Jobs == nil {
		status.Jobs = map[agent.State]int{}
	}
	return answer(w, r, status)
}

func (s *Server) sampled(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	return answer(w, r, s.samples.all())
}

func (s *Server) policy(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	if s.o.Policy == nil {
		return wire.New(wire.CodeNotServed, "the policy is not served")
	}
	data, err := s.o.Policy(r.Context())
	if missing(err) {
		return wire.New(wire.CodeNotFound, "no policy is in force")
	}
	if err != nil {
		return err
	}
	return answerBytes(w, r, wire.MediaEnvelope, data)
}

func (s *Server) ledger(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	if s.o.Ledger == nil {
		return wire.New(wire.CodeNotServed, "the ledger is not served")
	}
	c, err := s.o.Ledger.Checkpoint(r.Context())
	if err != nil {
		return err
	}
	return answer(w, r, wire.Ledger{Origin: c.Origin, Size: c.Size, Root: digest.SHA256(c.Root), Witnesses: c.Witnesses, Checkpoint: string(c.Note)})
}

// index reads the number of an entry.
func (s *Server) index(r *http.Request) (int64, error) {
	if _, err := readParams(r); err != nil {
		return 0, err
	}
	if s.o.Ledger == nil {
		return 0, wire.New(wire.CodeNotServed, "the ledger is not served")
	}
	n, ok := parseNumber(r.PathValue("index"))
	if !ok {
		return 0, wire.New(wire.CodeRequest, "%q is no number of an entry", shorten(r.PathValue("index")))
	}
	return n, nil
}

func (s *Server) entry(w http.ResponseWriter, r *http.Request, _ caller) error {
	n, err := s.index(r)
	if err != nil {
		return err
	}
	entry, err := s.o.Ledger.Entry(r.Context(), n)
	if err != nil {
		return err
	}
	return answerBytes(w, r, "application/octet-stream", entry)
}

func (s *Server) proof(w http.ResponseWriter, r *http.Request, _ caller) error {
	n, err := s.index(r)
	if err != nil {
		return err
	}
	proof, _, err := s.o.Ledger.Prove(r.Context(), n)
	if err != nil {
		return err
	}
	return answerBytes(w, r, wire.MediaText, proof.Marshal())
}

func (s *Server) problems(w http.ResponseWriter, r *http.Request, _ caller) error {
	return answer(w, r, map[string][]wire.Code{"problems": wire.Codes()})
}

func (s *Server) livez(w http.ResponseWriter, r *http.Request, _ caller) error {
	return answerBytes(w, r, wire.MediaText, []byte("ok\n"))
}

// readyz is 200 when the node takes jobs, and 503 with the reason when not. To strangers it gives no reason.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request, by caller) error {
	if s.o.Ready != nil {
		if err := s.o.Ready(r.Context()); err != nil {
			text := "not ready\n"
			if s.allowed(readers, by) == nil {
				text = "not ready: " + err.Error() + "\n"
			}
			w.Header().Set("Content-Type", wire.MediaText)
			w.WriteHeader(http.StatusServiceUnavailable)
			_, err := w.Write([]byte(text))
			return ended(err)
		}
	}
	return answerBytes(w, r, wire.MediaText, []byte("ready\n"))
}
