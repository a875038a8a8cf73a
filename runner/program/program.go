// Package program says what it takes to run the running program a second time, inside a confinement: the file itself and, unless it is
// static, the loader and the libraries that it is linked with. So a worker starts in an otherwise empty file system
// however the program was built.
//
// It only reads: /proc/self and the files that are mapped there. It never searches a library path, and so never picks up
// another library than the one that runs already.
package program

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"arch.network/runner"
)

// Program is an executable file with what it needs.
type Program struct {
	Path   string         // of the file, on the host
	Mounts []runner.Mount // loader and libraries at the places where they are looked for; none for a static program
	Env    []string       // "KEY=value" that the loader needs; none for a static program
}

// libraries is where libraries are put.
const libraries = "/.arch-lib"

// maxMaps bounds what is read of /proc/self/maps, in bytes.
const maxMaps = 4 << 20

// Self returns the running program. The error is a *runner.SetupError.
func Self() (Program, error) {
	file, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return Program{}, &runner.SetupError{Act: "find own program", Err: err, Cure: "mount /proc"}
	}
	p := Program{Path: file}
	loader, err := interpreter(file)
	if err == nil && loader != "" {
		err = p.link(loader)
	}
	if err != nil {
		return Program{}, &runner.SetupError{
			Act: fmt.Sprintf("find what %q is linked with", file), Err: err, Cure: "build it with CGO_ENABLED=0, which makes it static",
		}
	}
	return p, nil
}

// Static reports whether an executable file needs no other to start.
func Static(file string) (bool, error) {
	loader, err := interpreter(file)
	return err == nil && loader == "", err
}

// interpreter returns the path of the loader that an ELF file asks for (ELF gABI, Program Interpreter); "" if it is static.
func interpreter(file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		if p.Filesz > 4096 {
			return "", errors.New("the name of its loader is over 4096 bytes")
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return "", err
		}
		return path.Clean(string(bytes.TrimRight(name, "\x00"))), nil
	}
	return "", nil
}

// link adds the loader and every library that is mapped into this process.
func (p *Program) link(loader string) error {
	info, err := os.Stat(loader)
	if err != nil {
		return err
	}
	files, err := mapped()
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(loader) // a Mount follows no link
	if err != nil {
		return err
	}
	p.Mounts = []runner.Mount{bind(real, loader)}
	for _, file := range files {
		name, err := soname(file)
		if err != nil {
			return fmt.Errorf("read library %q: %w", file, err)
		}
		same, err := os.Stat(file)
		switch {
		case err != nil:
			return err
		case name == "" || os.SameFile(info, same): // the program, data, or the loader
		default:
			p.Mounts = append(p.Mounts, bind(file, path.Join(libraries, name)))
		}
	}
	p.Env = []string{"LD_LIBRARY_PATH=" + libraries}
	return nil
}

func bind(source, target string) runner.Mount {
	return runner.Mount{Kind: runner.Bind, Source: source, Target: target}
}

// mapped lists the files that are mapped executable into this process, each once (proc_pid_maps(5)).
func mapped() ([]string, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	var files []string
	seen := map[string]bool{}
	lines := bufio.NewScanner(io.LimitReader(maps, maxMaps))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || !strings.Contains(fields[1], "x") || !strings.HasPrefix(fields[5], "/") || seen[fields[5]] {
			continue
		}
		seen[fields[5]] = true
		files = append(files, fields[5])
	}
	return files, lines.Err()
}

// soname returns the name by which a library is asked for; "" if the file is no library.
func soname(file string) (string, error) {
	f, err := elf.Open(file)
	if _, ok := errors.AsType[*elf.FormatError](err); ok || errors.Is(err, fs.ErrNotExist) {
		return "", nil // such as a file that was replaced while we run: the loader says what is missing
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil || len(names) == 0 || strings.Contains(names[0], "/") {
		return "", nil
	}
	return names[0], nil
}
