package control

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"arch.network/agent"
	"arch.network/agent/control/wire"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
)

func parseQuery(raw string) (url.Values, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, wire.New(wire.CodeRequest, "the query cannot be read")
	}
	return values, nil
}

func (s *Server) jobs(w http.ResponseWriter, r *http.Request, _ caller) error {
	p, err := readParams(r, "state", "owner", "name", "limit", "before")
	if err != nil {
		return err
	}
	q := agent.Query{Owner: p["owner"], Name: p["name"]}
	if p["state"] != "" {
		for text := range strings.SplitSeq(p["state"], ",") {
			if !slices.Contains(agent.States(), agent.State(text)) {
				return wire.New(wire.CodeRequest, "state: there is no state %q", shorten(text))
			}
			q.States = append(q.States, agent.State(text))
		}
	}
	limit, err := p.number("limit", 1000)
	if err != nil {
		return err
	}
	if q.Limit = int(limit); q.Limit == 0 {
		q.Limit = 100
	}
	if q.Before, err = digest.Parse(p["before"]); p["before"] != "" && err != nil {
		return wire.New(wire.CodeRequest, "before: %q is no job id", shorten(p["before"]))
	}
	return s.list(w, r, q)
}

func (s *Server) quarantine(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	return s.list(w, r, agent.Query{States: []agent.State{agent.Quarantined}, Limit: 1000})
}

// list answers with one page.
func (s *Server) list(w http.ResponseWriter, r *http.Request, q agent.Query) error {
	jobs, err := s.o.Node.Jobs(r.Context(), q)
	if err != nil {
		return err
	}
	page := wire.Jobs{Jobs: jobs}
	if page.Jobs == nil {
		page.Jobs = []agent.Job{}
	}
	if len(jobs) == q.Limit {
		page.Next = jobs[len(jobs)-1].ID
	}
	return answer(w, r, page)
}

// find returns the job that the path names.
func (s *Server) find(r *http.Request) (agent.Job, error) {
	return s.o.Node.Job(r.Context(), r.PathValue("job"))
}

func (s *Server) job(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	job, err := s.find(r)
	if err != nil {
		return err
	}
	return answer(w, r, job)
}

func (s *Server) submit(w http.ResponseWriter, r *http.Request, by caller) error {
	data, err := s.signed(r, by)
	if err != nil {
		return err
	}
	job, err := s.o.Node.Submit(r.Context(), data, by.by)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/jobs/"+job.ID.String())
	return answer(w, r, job)
}

// signed reads an envelope. From others than operators it must be signed by somebody known.
func (s *Server) signed(r *http.Request, by caller) ([]byte, error) {
	if _, err := readParams(r); err != nil {
		return nil, err
	}
	data, err := readBody(r, wire.MediaJSON, wire.MediaEnvelope)
	if err != nil {
		return nil, err
	}
	env, err := dsse.Parse(data)
	if err != nil {
		return nil, &agent.EnvelopeError{Err: err}
	}
	if by.operator {
		return data, nil
	}
	if s.o.Known == nil {
		return nil, wire.New(wire.CodeUnsigned, "the node takes documents from its operators only")
	}
	if err := s.o.Known(env); err != nil {
		return nil, wire.New(wire.CodeUnsigned, "%v", err)
	}
	return data, nil
}

func (s *Server) why(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	job, err := s.find(r)
	if err != nil {
		return err
	}
	findings, err := s.o.Node.Why(r.Context(), job.ID)
	if err != nil {
		return err
	}
	if findings == nil {
		findings = []agent.Finding{}
	}
	return answer(w, r, wire.Findings{Findings: findings})
}

func (s *Server) envelope(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	job, err := s.find(r)
	if err != nil {
		return err
	}
	data, err := s.o.Node.Envelope(r.Context(), job.ID)
	if err != nil {
		return err
	}
	return answerBytes(w, r, wire.MediaEnvelope, data)
}

// log sends what an execution printed. The bytes are the job's own: nothing in them is to be trusted.
func (s *Server) log(w http.ResponseWriter, r *http.Request, _ caller) error {
	q, err := readLogQuery(r)
	if err != nil {
		return err
	}
	job, err := s.find(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if q.Follow {
		leave, ok := s.enter()
		if !ok {
			return wire.New(wire.CodeBusy, "%d streams are open", cap(s.streams))
		}
		defer leave()
		defer context.AfterFunc(s.stop, cancel)()
	}
	log, err := s.o.Node.Log(ctx, job.ID, q)
	if err != nil {
		return err
	}
	defer log.Close()
	w.Header().Set("Content-Type", wire.MediaText)
	w.Header().Set("Cache-Control", "no-store")
	return s.copy(w, r, log)
}

func readLogQuery(r *http.Request) (agent.LogQuery, error) {
	p, err := readParams(r, "attempt", "stream", "offset", "follow")
	if err != nil {
		return agent.LogQuery{}, err
	}
	q := agent.LogQuery{Stream: p["stream"]}
	if _, ok := p["stream"]; !ok {
		q.Stream = "stdout"
	}
	if q.Stream != "stdout" && q.Stream != "stderr" {
		return q, wire.New(wire.CodeRequest, "stream: %q is neither stdout nor stderr", shorten(q.Stream))
	}
	attempt, err := p.number("attempt", 1<<20)
	if err != nil {
		return q, err
	}
	q.Attempt = int(attempt)
	if q.Offset, err = p.number("offset", 1<<62); err != nil {
		return q, err
	}
	q.Follow, err = p.flag("follow")
	return q, err
}

// copy sends a stream as it comes. A reader who does not take what was sent in time is dropped.
func (s *Server) copy(w http.ResponseWriter, r *http.Request, from io.Reader) error {
	if r.Method == http.MethodHead {
		return nil
	}
	rc := forever(w)
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return ended(err)
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(s.o.Slow)) // of the kernel's clock, whatever Options.Now says
			if _, err := w.Write(buf[:n]); err != nil {
				return ended(err)
			}
			if err := rc.Flush(); err != nil {
				return ended(err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *Server) output(w http.ResponseWriter, r *http.Request, _ caller) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	job, err := s.find(r)
	if err != nil {
		return err
	}
	name := r.PathValue("output")
	i := slices.IndexFunc(job.Outputs, func(o agent.Output) bool { return o.Name == name })
	switch {
	case i < 0:
		return wire.New(wire.CodeNotFound, "job %s has no output %q", job.Name, shorten(name))
	case job.State != agent.Anchored && job.State != agent.Archived:
		return &agent.StepError{From: job.State, To: agent.Anchored}
	}
	nar, err := s.o.Node.OutputNAR(r.Context(), job.ID, name)
	if err != nil {
		return err
	}
	defer nar.Close()
	w.Header().Set("Content-Type", wire.MediaNAR)
	w.Header().Set("ETag", `"`+job.Outputs[i].NAR.Hex()+`"`)
	return s.copy(w, r, nar)
}
