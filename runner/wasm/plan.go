package wasm

import (
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"arch.network/runner"
)

// handover is how a Spec's files go to a worker of a pool: as descriptors of regular files, never of directories, from which ".."
// would lead out of the worker's confinement.
type handover struct {
	dirs    []taskDir
	outputs []taskFile
	files   []*os.File // in the order of the files in dirs
	room    int64
}

// defaultRoom is how much a directory in memory may hold if neither the Tmpfs nor the Spec says so: bytes.
const defaultRoom = 256 << 20

// plan decides whether a module can run in a worker of a pool, and opens what it gets there.
func plan(spec runner.Spec) (*handover, bool) {
	h := &handover{}
	for _, d := range spec.Module.Dirs {
		if !h.add(spec, d) {
			h.close()
			return nil, false
		}
	}
	for _, o := range spec.Outputs {
		file, ok := h.place(spec, o)
		if !ok {
			h.close()
			return nil, false
		}
		h.outputs = append(h.outputs, file)
	}
	return h, true
}

func (h *handover) close() {
	for _, f := range h.files {
		f.Close()
	}
	h.files = nil
}

// add plans one directory of the module.
func (h *handover) add(spec runner.Spec, d runner.Dir) bool {
	out := taskDir{As: d.As, Writable: d.Writable}
	base, found := locate(spec.Mounts, d.Path)
	below := mountsBelow(spec.Mounts, d.Path)
	switch {
	case d.Writable:
		if !found || base.mount.Kind != runner.Tmpfs || len(below) > 0 {
			return false
		}
		h.room = max(h.room, base.mount.Size, spec.Limits.Scratch)
		if h.room == 0 {
			h.room = defaultRoom
		}
	case found && base.mount.Kind == runner.Bind:
		if len(below) > 0 || !h.tree(&out, base.mount.Source, base.rel, "") {
			return false
		}
	case found && base.mount.Kind != runner.Tmpfs, !found && len(below) == 0:
		return false
	}
	for _, m := range below {
		if !h.mount(&out, m, strings.TrimPrefix(m.Target, strings.TrimSuffix(d.Path, "/")+"/")) {
			return false
		}
	}
	h.dirs = append(h.dirs, out)
	return true
}

// mountsBelow returns the mounts whose targets lie below a path.
func mountsBelow(mounts []runner.Mount, p string) []runner.Mount {
	var below []runner.Mount
	for _, m := range mounts {
		if strings.HasPrefix(m.Target, strings.TrimSuffix(p, "/")+"/") {
			below = append(below, m)
		}
	}
	return below
}

// mount plans a mount that lies in a directory of the module, at a path relative to it.
func (h *handover) mount(out *taskDir, m runner.Mount, at string) bool {
	for _, f := range out.Files { // one mount on another: the driver knows how
		if f.Path == at || strings.HasPrefix(at, f.Path+"/") && !f.Tree {
			return false
		}
	}
	switch m.Kind {
	case runner.Bind:
		info, err := os.Lstat(m.Source)
		switch {
		case err != nil || m.Writable:
			return false
		case info.IsDir():
			return h.tree(out, m.Source, ".", at)
		default:
			return h.file(out, place{m, "."}, at)
		}
	case runner.Data:
		return h.data(out, m.Content, at)
	default:
		return false
	}
}

// tree plans a directory of the host.
func (h *handover) tree(out *taskDir, source, rel, at string) bool {
	root, err := os.OpenRoot(source)
	if err != nil {
		return false
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), rel, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := path.Join(at, strings.TrimPrefix(strings.TrimPrefix(name, strings.TrimSuffix(rel, "/")), "/"))
		if rel == "." {
			to = path.Join(at, name)
		}
		if !h.entry(out, root, e, name, to) {
			return fs.ErrInvalid
		}
		return nil
	})
	return err == nil
}

// entry plans one entry of a directory of the host.
func (h *handover) entry(out *taskDir, root *os.Root, e fs.DirEntry, name, to string) bool {
	switch {
	case len(out.Files) > 2*maxFiles || len(h.files) >= maxFiles:
		return false
	case e.IsDir():
		if to != "." && to != "" {
			out.Files = append(out.Files, taskFile{Path: to, Tree: true})
		}
		return true
	case e.Type() == fs.ModeSymlink:
		target, err := root.Readlink(name)
		out.Files = append(out.Files, taskFile{Path: to, Link: target})
		return err == nil && target != ""
	case e.Type() != 0:
		return false
	}
	f, size, err := openIn(root, name)
	if err != nil {
		return false
	}
	h.take(out, f, size, to)
	return true
}

func (h *handover) take(out *taskDir, f *os.File, size int64, to string) {
	out.Files = append(out.Files, taskFile{Path: to, Size: size})
	h.files = append(h.files, f)
}

func (h *handover) file(out *taskDir, p place, at string) bool {
	content, size, err := p.open()
	if err != nil {
		return false
	}
	f, ok := content.(*os.File)
	if !ok || len(h.files) >= maxFiles {
		content.Close()
		return false
	}
	h.take(out, f, size, at)
	return true
}

// data puts content that a Spec holds into a file without a name, which cannot be changed.
func (h *handover) data(out *taskDir, content []byte, at string) bool {
	fd, err := unix.MemfdCreate("arch-data", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil || len(h.files) >= maxFiles {
		return false
	}
	f := os.NewFile(uintptr(fd), "arch-data")
	_, err = f.Write(content)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
	}
	if err != nil {
		f.Close()
		return false
	}
	h.take(out, f, int64(len(content)), at)
	return true
}

// place finds where in the module's writable directories an output lies.
func (h *handover) place(spec runner.Spec, o runner.Output) (taskFile, bool) {
	for i, d := range spec.Module.Dirs {
		if !d.Writable {
			continue
		}
		if o.Path == d.Path {
			return taskFile{Dir: i}, true
		}
		if rel, ok := strings.CutPrefix(o.Path, strings.TrimSuffix(d.Path, "/")+"/"); ok {
			return taskFile{Dir: i, Path: rel}, true
		}
	}
	return taskFile{}, false
}
