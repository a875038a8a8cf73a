package guix

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/nix/drv"
	"arch.network/runner/closure/daemon"
)

// UnconfinedError says that a daemon's builders are not in a sandbox.
type UnconfinedError struct{ Missing string }

func (e *UnconfinedError) Error() string {
	return "attest a build by guix-daemon: its sandbox is not in force: " + e.Missing
}

// Hint tells the way out.
func (e *UnconfinedError) Hint() string {
	return "start guix-daemon without --disable-chroot; or allow it with --degraded, and the receipt names another builder"
}

// Unconfined returns an *UnconfinedError if the daemon builds without a sandbox, or if that cannot be seen.
func (b *Backend) Unconfined() error {
	if len(b.missing) == 0 {
		return nil
	}
	return &UnconfinedError{b.missing[0]}
}

// tryConfinement returns what of the sandbox is missing. It builds a derivation whose builder looks for an object of the store that it does not depend on:
// within the daemon's sandbox, which is made whole or not at all, only what a derivation depends on is there. Both objects are garbage afterwards.
func tryConfinement(ctx context.Context, c *daemon.Client) ([]string, error) {
	if runtime.GOARCH != "amd64" {
		return []string{"guix-sandbox: it can only be tried on amd64"}, nil
	}
	content, err := narOf(probe(), true)
	if err != nil {
		return nil, err
	}
	program, err := c.AddSource(ctx, "arch-probe", content, nar.Limits{})
	if err != nil {
		return nil, err
	}
	hidden, err := c.AddText(ctx, "arch-hidden", []byte(rand.Text()), nil) // another one each time, so that it is tried each time
	if err != nil {
		return nil, err
	}
	d, err := probeDerivation(program, hidden)
	if err != nil {
		return nil, err
	}
	path, err := c.AddText(ctx, "arch-probe"+drv.Suffix, d.Encode(), d.References())
	if err != nil {
		return nil, err
	}
	err = c.Build(ctx, []string{path}, daemon.Normal)
	if failed, ok := errors.AsType[*daemon.Error](err); ok && strings.Contains(failed.Message, "failed") {
		return []string{"guix-sandbox: a builder sees what it does not depend on"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("try the sandbox of guix-daemon: %w", err)
	}
	return nil, nil
}

// probeDerivation returns the derivation whose builder looks for an object.
func probeDerivation(program, hidden string) (*drv.Derivation, error) {
	d := &drv.Derivation{
		Outputs: []drv.Output{{Name: "out"}}, Sources: []string{program}, System: "x86_64-linux", Builder: program, Args: []string{hidden},
		Env: []drv.Var{{Name: "out"}},
	}
	out, err := storepath.Output(storepath.Guix, "arch-probe", "out", digest.Of(d.Encode()))
	if err != nil {
		return nil, err
	}
	d.Outputs[0].Path, d.Env[0].Value = out.String(), out.String()
	return d, nil
}

// probe returns a program for Linux on amd64: if its first argument is the path of something, it ends with 1; otherwise it creates an empty file at the
// path in the variable "out" and ends with 0. It needs nothing but the kernel.
func probe() []byte {
	code := []byte{
		0x48, 0x8d, 0x5c, 0x24, 0x10, // lea rbx, [rsp+16]: where argv[1] is
		0x48, 0x8b, 0x3b, // mov rdi, [rbx]
		0x31, 0xf6, // xor esi, esi: F_OK
		0xb8, 0x15, 0, 0, 0, // mov eax, 21: access
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x79, 0x44, // jns seen
		0x48, 0x8b, 0x3b, // argument: mov rdi, [rbx]
		0x48, 0x83, 0xc3, 0x08, // add rbx, 8
		0x48, 0x85, 0xff, // test rdi, rdi
		0x75, 0xf4, // jnz argument
		0x48, 0x8b, 0x3b, // variable: mov rdi, [rbx]
		0xb8, 0x02, 0, 0, 0, // mov eax, 2
		0x48, 0x85, 0xff, // test rdi, rdi
		0x74, 0x24, // jz failed
		0x48, 0x83, 0xc3, 0x08, // add rbx, 8
		0x81, 0x3f, 'o', 'u', 't', '=', // cmp dword [rdi], "out="
		0x75, 0xe7, // jne variable
		0x48, 0x83, 0xc7, 0x04, // add rdi, 4
		0xbe, 0x24, 0x01, 0, 0, // mov esi, 0444
		0xb8, 0x55, 0, 0, 0, // mov eax, 85: creat
		0x0f, 0x05, // syscall
		0x85, 0xc0, // test eax, eax
		0x78, 0x04, // js failed
		0x31, 0xff, // xor edi, edi
		0xeb, 0x0c, // jmp exit
		0xbf, 0x02, 0, 0, 0, // failed: mov edi, 2
		0xeb, 0x05, // jmp exit
		0xbf, 0x01, 0, 0, 0, // seen: mov edi, 1
		0xb8, 0x3c, 0, 0, 0, // exit: mov eax, 60: exit
		0x0f, 0x05, // syscall
	}
	const base, headers = 0x400000, 64 + 56 // of the file and of its one segment (ELF, 64 bits)
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	half := func(list ...uint16) {
		for _, v := range list {
			b = binary.LittleEndian.AppendUint16(b, v)
		}
	}
	word := func(list ...uint32) {
		for _, v := range list {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
	}
	long := func(list ...uint64) {
		for _, v := range list {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	half(2, 62) // executable, x86-64
	word(1)
	long(base+headers, 64, 0) // entry, program headers, no sections
	word(0)
	half(64, 56, 1, 0, 0, 0)
	word(1, 5)                                                                        // to be loaded, read and executed
	long(0, base, base, headers+uint64(len(code)), headers+uint64(len(code)), 0x1000) // where from, where to, sizes, alignment
	return append(b, code...)
}
