package witness

import (
	"fmt"
	"path/filepath"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
)

// Fork is the evidence that a log told two histories: two checkpoints of one size with different roots, each signed by the log.
type Fork struct{ First, Second []byte }

func (s *Server) path(origin string) string {
	return filepath.Join(s.opts.Dir, digest.Of([]byte(origin)).Hex())
}

// keepFork keeps the evidence of a fork. What contradicts a checkpoint in the same way is kept once.
func (s *Server) keepFork(origin string, first, second []byte) error {
	known, err := filepath.Glob(s.path(origin) + ".fork-*")
	if err != nil || len(known) >= maxForks {
		return err
	}
	c, err := s.opts.Policy.Read(second)
	if err != nil {
		return err
	}
	// Named by what is signed: signatures can be made again and again over the same.
	path := fmt.Sprintf("%s.fork-%d-%x", s.path(origin), c.Size, c.Root[:8])
	return durable.WriteFile(path, append(append([]byte(nil), first...), append([]byte("\x00"), second...)...), 0o644)
}

// Forks returns the evidence that there is against a log.
func (s *Server) Forks(origin string) ([]Fork, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, err := filepath.Glob(s.path(origin) + ".fork-*")
	if err != nil {
		return nil, err
	}
	var forks []Fork
	for _, file := range files {
		data, err := durable.ReadFile(file, 2*ledger.MaxNote+1)
		if err != nil {
			return nil, err
		}
		first, second, ok := strings.Cut(string(data), "\x00")
		if !ok {
			return nil, fmt.Errorf("read evidence of a fork: %s is damaged", file)
		}
		forks = append(forks, Fork{First: []byte(first), Second: []byte(second)})
	}
	return forks, nil
}
