package wasi

import "github.com/tetratelabs/wazero/sys"

// procExit ends the module: wazero carries the status to whoever called it, as a *sys.ExitError.
func (s *System) procExit(m memory, p []uint64) errno {
	code := uint32(p[0])
	m.mod.CloseWithExitCode(m.ctx, code) // so that nothing else runs in it
	panic(sys.NewExitError(code))
}

func (s *System) procRaise(memory, []uint64) errno { return errNoSystem }

func (s *System) schedYield(memory, []uint64) errno { return success }

// sockRefuse answers for all calls on sockets: no descriptor is one.
func (s *System) sockRefuse(_ memory, p []uint64) errno {
	if _, e := s.get(p[0], 0); e != success {
		return e
	}
	return errNotSocket
}
