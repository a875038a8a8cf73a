package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Bounds of what is read.
const (
	maxFile  = 4 << 20 // bytes; a machine with 16 GPUs and all their partitions has a file of some 500 KiB
	maxFiles = 256     // in one directory
)

// versions are those of the format that this package knows whole.
var versions = []string{"0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"}

// file is one specification.
type file struct {
	Version     string            `json:"cdiVersion"`
	Kind        string            `json:"kind"`
	Annotations map[string]string `json:"annotations"`
	Devices     []device          `json:"devices"`
	Edits       edits             `json:"containerEdits"`

	path string
}

type device struct {
	Name        string            `json:"name"`
	Annotations map[string]string `json:"annotations"`
	Edits       edits             `json:"containerEdits"`
}

type edits struct {
	Env            []string    `json:"env"`
	DeviceNodes    []node      `json:"deviceNodes"`
	Mounts         []mount     `json:"mounts"`
	Hooks          []hook      `json:"hooks"`
	NetDevices     []netDevice `json:"netDevices"`
	IntelRDT       *intelRDT   `json:"intelRdt"`
	AdditionalGIDs []uint32    `json:"additionalGids"`
}

type node struct {
	Path        string  `json:"path"`
	HostPath    string  `json:"hostPath"`
	Type        string  `json:"type"`
	Major       int64   `json:"major"`
	Minor       int64   `json:"minor"`
	FileMode    *uint32 `json:"fileMode"`
	Permissions string  `json:"permissions"`
	UID         *uint32 `json:"uid"`
	GID         *uint32 `json:"gid"`
}

type mount struct {
	HostPath      string   `json:"hostPath"`
	ContainerPath string   `json:"containerPath"`
	Options       []string `json:"options"`
	Type          string   `json:"type"`
}

type hook struct {
	Name    string   `json:"hookName"`
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
	Timeout *int     `json:"timeout"`
}

type netDevice struct {
	Host string `json:"hostInterfaceName"`
	Name string `json:"name"`
}

type intelRDT struct {
	ClosID   string   `json:"closID"`
	L3       string   `json:"l3CacheSchema"`
	MemBW    string   `json:"memBwSchema"`
	Schemata []string `json:"schemata"`
	Monitor  bool     `json:"enableMonitoring"`
	CMT      bool     `json:"enableCMT"`
	MBM      bool     `json:"enableMBM"`
}

// entry is a device and where it comes from.
type entry struct {
	file   *file
	device device
	other  string // another file of the same directory that has it
}

// readDirs reads everything, later directories over earlier ones.
func readDirs(dirs []string) (map[string]entry, error) {
	all := map[string]entry{}
	for _, dir := range dirs {
		files, err := readDir(dir)
		if err != nil {
			return nil, err
		}
		here := map[string]entry{}
		for _, f := range files {
			for _, d := range f.Devices {
				name := f.Kind + "=" + d.Name
				if before, ok := here[name]; ok {
					before.other = f.path
					here[name] = before
					continue
				}
				here[name] = entry{file: f, device: d}
			}
		}
		maps.Copy(all, here)
	}
	return all, nil
}

func readDir(dir string) ([]*file, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read CDI specifications: %w", err)
	}
	var files []*file
	for _, e := range list {
		name := filepath.Join(dir, e.Name())
		if ext := filepath.Ext(name); ext != ".json" && ext != ".yaml" {
			continue
		}
		if len(files) == maxFiles {
			return nil, fmt.Errorf("read CDI specifications: %s holds more than %d", dir, maxFiles)
		}
		f, err := readFile(name)
		if err != nil {
			return nil, fmt.Errorf("read CDI specification %s: %w", name, err)
		}
		files = append(files, f)
	}
	return files, nil
}

func readFile(name string) (*file, error) {
	in, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("it is not a file"))
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	f, err := parse(text)
	if err != nil {
		return nil, err
	}
	f.path = name
	return f, nil
}

// parse reads a specification. YAML is read into values first; those of JSON are among them.
func parse(text []byte) (*file, error) {
	if !json.Valid(text) {
		var err error
		if text, err = toJSON(text); err != nil {
			return nil, err
		}
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	f := new(file)
	if err := in.Decode(f); err != nil {
		return nil, err
	}
	if in.More() {
		return nil, errors.New("something follows the specification")
	}
	return f, f.check()
}

// maxDepth is how deep the format is.
const maxDepth = 16

// toJSON translates YAML. Aliases, by which a small text can become a large value, are refused.
func toJSON(text []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if err := checkNode(&root, 0); err != nil {
		return nil, err
	}
	var value any
	if err := root.Decode(&value); err != nil {
		return nil, err
	}
	return json.Marshal(value)
}

func checkNode(n *yaml.Node, depth int) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return fmt.Errorf("line %d: anchors and aliases are refused", n.Line)
	}
	if depth > maxDepth {
		return fmt.Errorf("line %d: more than %d levels", n.Line, maxDepth)
	}
	for _, c := range n.Content {
		if err := checkNode(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) check() error {
	if !slices.Contains(versions, f.Version) {
		return fmt.Errorf("cdiVersion %q is not one of %q", f.Version, versions)
	}
	if err := checkKind(f.Kind); err != nil {
		return err
	}
	if len(f.Devices) == 0 {
		return errors.New("it names no device")
	}
	seen := map[string]bool{}
	for _, d := range f.Devices {
		if err := checkDeviceName(d.Name); err != nil {
			return err
		}
		if seen[d.Name] {
			return fmt.Errorf("device %q is there twice", d.Name)
		}
		seen[d.Name] = true
	}
	return nil
}
