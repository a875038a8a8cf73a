package wasi

import (
	cryptorand "crypto/rand"
	"math/rand/v2"
)

// random makes random bytes: of the host, or ChaCha8 of a seed.
type random struct {
	stream *rand.ChaCha8 // nil: the host's
}

func newRandom(seed *[32]byte) random {
	if seed == nil {
		return random{}
	}
	return random{rand.NewChaCha8(*seed)}
}

func (r random) read(b []byte) {
	if r.stream == nil {
		cryptorand.Read(b) // never fails
		return
	}
	r.stream.Read(b) // never fails
}

func (s *System) randomGet(m memory, p []uint64) errno {
	b, e := m.at(p[0], p[1])
	if e != success {
		return e
	}
	s.charge(len(b))
	s.random.read(b)
	return success
}

// charge says that a call copies n bytes.
func (s *System) charge(n int) {
	if s.config.Charge != nil {
		s.config.Charge(uint64(n))
	}
}
