//go:build !amd64 && !arm64

package namespace

import "errors"

// registersKnown is true where calls of a traced thread can be read and changed.
const registersKnown = false

// sysTime is no call.
const sysTime = ^uint64(0)

// registers stand for those of architectures on which the clock cannot be shifted.
type registers struct{}

func (r *registers) get(int) error           { return errors.ErrUnsupported }
func (r *registers) set(int) error           { return errors.ErrUnsupported }
func (r *registers) number() uint64          { return sysTime }
func (r *registers) instruction() uint64     { return 0 }
func (r *registers) stack() uint64           { return 0 }
func (r *registers) argument(int) uint64     { return 0 }
func (r *registers) setArgument(int, uint64) {}
func (r *registers) skip(int, int64) error   { return errors.ErrUnsupported }
