package namespace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
)

// clockCode is three functions under the System V ABI. Each calls the kernel's: the four zero bytes behind e8 take its
// distance. The eight bytes behind 48 b9 take the seconds to add, and the four behind 48 81 c1 what is left.
var clockCode = []byte{
	// int clock_gettime(clockid_t clock, struct timespec *t)
	0xf3, 0x0f, 0x1e, 0xfa, // endbr64
	0x57,                   // push rdi
	0x56,                   // push rsi
	0x48, 0x83, 0xec, 0x08, // sub rsp, 8
	0xe8, 0, 0, 0, 0, // call the kernel's
	0x48, 0x83, 0xc4, 0x08, // add rsp, 8
	0x5e,       // pop rsi
	0x5f,       // pop rdi
	0x85, 0xc0, // test eax, eax
	0x75, 0x3e, // jne done
	0x83, 0xff, 0x0b, // cmp edi, CLOCK_TAI
	0x77, 0x39, // ja done
	0xb9, 0x21, 0x08, 0, 0, // mov ecx, 1<<CLOCK_REALTIME | 1<<CLOCK_REALTIME_COARSE | 1<<CLOCK_TAI
	0x0f, 0xa3, 0xf9, // bt ecx, edi
	0x73, 0x2f, // jnc done
	0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, // mov rcx, seconds
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0x48, 0x8b, 0x4e, 0x08, // mov rcx, [rsi+8]
	0x48, 0x81, 0xc1, 0, 0, 0, 0, // add rcx, nanoseconds
	0x48, 0x81, 0xf9, 0x00, 0xca, 0x9a, 0x3b, // cmp rcx, 1e9
	0x7c, 0x0a, // jl store
	0x48, 0x81, 0xe9, 0x00, 0xca, 0x9a, 0x3b, // sub rcx, 1e9
	0x48, 0xff, 0x06, // inc [rsi]
	0x48, 0x89, 0x4e, 0x08, // store: mov [rsi+8], rcx
	0xc3,                                           // done: ret
	0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, // nop

	// int gettimeofday(struct timeval *t, struct timezone *zone)
	0xf3, 0x0f, 0x1e, 0xfa, // endbr64
	0x57,                   // push rdi
	0x48, 0x83, 0xec, 0x10, // sub rsp, 16
	0xe8, 0, 0, 0, 0, // call the kernel's
	0x48, 0x83, 0xc4, 0x10, // add rsp, 16
	0x5f,       // pop rdi
	0x85, 0xc0, // test eax, eax
	0x75, 0x34, // jne done
	0x48, 0x85, 0xff, // test rdi, rdi
	0x74, 0x2f, // je done
	0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, // mov rcx, seconds
	0x48, 0x01, 0x0f, // add [rdi], rcx
	0x48, 0x8b, 0x4f, 0x08, // mov rcx, [rdi+8]
	0x48, 0x81, 0xc1, 0, 0, 0, 0, // add rcx, microseconds
	0x48, 0x81, 0xf9, 0x40, 0x42, 0x0f, 0x00, // cmp rcx, 1e6
	0x7c, 0x0a, // jl store
	0x48, 0x81, 0xe9, 0x40, 0x42, 0x0f, 0x00, // sub rcx, 1e6
	0x48, 0xff, 0x07, // inc [rdi]
	0x48, 0x89, 0x4f, 0x08, // store: mov [rdi+8], rcx
	0xc3,                   // done: ret
	0x0f, 0x1f, 0x40, 0x00, // nop

	// time_t time(time_t *t)
	0xf3, 0x0f, 0x1e, 0xfa, // endbr64
	0x57,                   // push rdi
	0x48, 0x83, 0xec, 0x10, // sub rsp, 16
	0xbf, 0x05, 0, 0, 0, // mov edi, CLOCK_REALTIME_COARSE
	0x48, 0x89, 0xe6, // mov rsi, rsp
	0xe8, 0, 0, 0, 0, // call clock_gettime above
	0x48, 0x8b, 0x04, 0x24, // mov rax, [rsp]
	0x48, 0x83, 0xc4, 0x10, // add rsp, 16
	0x5f,             // pop rdi
	0x48, 0x85, 0xff, // test rdi, rdi
	0x74, 0x03, // je done
	0x48, 0x89, 0x07, // mov [rdi], rax
	0xc3, // done: ret
}

// Places in clockCode: where the functions begin, and what is to be filled in.
const (
	codeClock = 0x00
	codeDay   = 0x60
	codeTime  = 0xb0

	clockCall, clockSeconds, clockRest = 0x0b, 0x2a, 0x3c
	dayCall, daySeconds, dayRest       = 0x6a, 0x7e, 0x90
	timeCall                           = 0xc2
)

// clockStubs returns the code that is to be at place of a vDSO whose symbols have the values of where, and the new
// values of symbols.
func clockStubs(where map[string]int, place int, offset time.Duration) (code []byte, entries map[string]int, err error) {
	clock, ok := where["__vdso_clock_gettime"]
	day, ok2 := where["__vdso_gettimeofday"]
	if !ok || !ok2 {
		return nil, nil, errors.New("the vDSO does not read the clock")
	}
	code = bytes.Clone(clockCode)
	o := shifted(0, 0, offset)
	put32 := func(at, value int) { binary.LittleEndian.PutUint32(code[at:], uint32(int32(value))) }
	call := func(at, target int) { put32(at, target-(place+at+4)) }
	call(clockCall, clock)
	call(dayCall, day)
	call(timeCall, place+codeClock)
	binary.LittleEndian.PutUint64(code[clockSeconds:], uint64(o.seconds))
	binary.LittleEndian.PutUint64(code[daySeconds:], uint64(o.seconds))
	put32(clockRest, int(o.nanoseconds))
	put32(dayRest, int(o.nanoseconds/1000))
	return code, map[string]int{
		"__vdso_clock_gettime": place + codeClock, "clock_gettime": place + codeClock,
		"__vdso_gettimeofday": place + codeDay, "gettimeofday": place + codeDay,
		"__vdso_time": place + codeTime, "time": place + codeTime,
	}, nil
}
