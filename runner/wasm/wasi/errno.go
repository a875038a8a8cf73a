package wasi

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// errno is a result of a host function, with WASI's numbers.
type errno uint32

// The numbers that are used here.
const (
	success      errno = 0
	errAccess    errno = 2
	errBadFD     errno = 8
	errBusy      errno = 10
	errExist     errno = 20
	errFault     errno = 21
	errFileBig   errno = 22
	errSequence  errno = 25 // EILSEQ
	errInterrupt errno = 27
	errInvalid   errno = 28
	errIO        errno = 29
	errIsDir     errno = 31
	errLoop      errno = 32
	errManyFiles errno = 33
	errManyLinks errno = 34
	errNameLong  errno = 37
	errNoEntry   errno = 44
	errNoMemory  errno = 48
	errNoSpace   errno = 51
	errNoSystem  errno = 52 // ENOSYS
	errNotDir    errno = 54
	errNotEmpty  errno = 55
	errNotSocket errno = 57
	errNotSup    errno = 58
	errOverflow  errno = 61
	errPerm      errno = 63
	errPipe      errno = 64
	errRange     errno = 68
	errReadOnly  errno = 69
	errSeekPipe  errno = 70
	errTextBusy  errno = 74
	errCrossDev  errno = 75
	errNotCap    errno = 76 // the descriptor lacks a right
)

var errnos = map[syscall.Errno]errno{
	syscall.EACCES: errAccess, syscall.EBADF: errBadFD, syscall.EBUSY: errBusy, syscall.EEXIST: errExist,
	syscall.EFAULT: errFault, syscall.EFBIG: errFileBig, syscall.EILSEQ: errSequence, syscall.EINTR: errInterrupt,
	syscall.EINVAL: errInvalid, syscall.EIO: errIO, syscall.EISDIR: errIsDir, syscall.ELOOP: errLoop,
	syscall.EMFILE: errManyFiles, syscall.ENFILE: errManyFiles, syscall.EMLINK: errManyLinks,
	syscall.ENAMETOOLONG: errNameLong, syscall.ENOENT: errNoEntry, syscall.ENOMEM: errNoMemory, syscall.ENOSPC: errNoSpace,
	syscall.EDQUOT: errNoSpace, syscall.ENOSYS: errNoSystem, syscall.ENOTDIR: errNotDir, syscall.ENOTEMPTY: errNotEmpty,
	syscall.ENOTSUP: errNotSup, syscall.EOVERFLOW: errOverflow, syscall.EPERM: errPerm, syscall.EPIPE: errPipe,
	syscall.ERANGE: errRange, syscall.EROFS: errReadOnly, syscall.ESPIPE: errSeekPipe, syscall.ETXTBSY: errTextBusy,
	syscall.EXDEV: errCrossDev, syscall.ENXIO: errNotSup,
}

// errorNumber translates an error of package os.
func errorNumber(err error) errno {
	if err == nil {
		return success
	}
	if n, ok := errors.AsType[syscall.Errno](err); ok {
		if e, ok := errnos[n]; ok {
			return e
		}
		return errIO
	}
	switch {
	case errors.Is(err, os.ErrClosed):
		return errBadFD
	case errors.Is(err, fs.ErrNotExist):
		return errNoEntry
	case errors.Is(err, fs.ErrExist):
		return errExist
	case errors.Is(err, fs.ErrPermission):
		return errPerm
	case errors.Is(err, fs.ErrInvalid):
		return errInvalid
	case strings.Contains(err.Error(), "escapes from parent"): // os.Root has no value for it
		return errPerm
	default:
		return errIO
	}
}
