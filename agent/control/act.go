package control

import (
	"net/http"

	"arch.network/agent"
	"arch.network/agent/control/wire"
)

func (s *Server) actOnJob(w http.ResponseWriter, r *http.Request, by caller) error {
	verb := agent.Verb(r.PathValue("verb"))
	if verb != agent.VerbCancel && verb != agent.VerbRelease && verb != agent.VerbDiscard {
		return wire.New(wire.CodeNotFound, "a job has no act %q", shorten(string(verb)))
	}
	if _, err := readParams(r); err != nil {
		return err
	}
	reason, err := readReason(r)
	if err != nil {
		return err
	}
	job, err := s.find(r)
	if err != nil {
		return err
	}
	if err := s.o.Node.Act(r.Context(), agent.Act{Verb: verb, Job: job.ID, By: by.by, Reason: reason}); err != nil {
		return err
	}
	if job, err = s.o.Node.Job(r.Context(), job.ID.String()); err != nil {
		return err
	}
	return answer(w, r, job)
}

func (s *Server) actOnNode(w http.ResponseWriter, r *http.Request, by caller) error {
	verb := agent.Verb(r.PathValue("verb"))
	if verb != agent.VerbDrain && verb != agent.VerbResume {
		return wire.New(wire.CodeNotFound, "a node has no act %q", shorten(string(verb)))
	}
	if _, err := readParams(r); err != nil {
		return err
	}
	reason, err := readReason(r)
	if err != nil {
		return err
	}
	if err := s.o.Node.Act(r.Context(), agent.Act{Verb: verb, By: by.by, Reason: reason}); err != nil {
		return err
	}
	return s.status(w, r, by)
}

func (s *Server) direct(w http.ResponseWriter, r *http.Request, by caller) error {
	data, err := s.signed(r, by)
	if err != nil {
		return err
	}
	if err := s.o.Node.Direct(r.Context(), data, by.by); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
