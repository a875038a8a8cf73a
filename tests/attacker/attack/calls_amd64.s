#include "textflag.h"

// func getpid32() uintptr
TEXT ·getpid32(SB), NOSPLIT, $0-8
	MOVL $20, AX // __NR_getpid of i386
	INT  $0x80
	MOVQ AX, ret+0(FP)
	RET

// func rawClone3(args unsafe.Pointer, size uintptr) (pid uintptr, errno syscall.Errno)
TEXT ·rawClone3(SB), NOSPLIT, $0-32
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVL $435, AX // SYS_clone3
	SYSCALL
	TESTQ AX, AX
	JNZ  parent
	XORL DI, DI
	MOVL $231, AX // SYS_exit_group
	SYSCALL
parent:
	CMPQ AX, $0xfffffffffffff001
	JLS  ok
	NEGQ AX
	MOVQ $0, pid+16(FP)
	MOVQ AX, errno+24(FP)
	RET
ok:
	MOVQ AX, pid+16(FP)
	MOVQ $0, errno+24(FP)
	RET
