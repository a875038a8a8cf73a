package wasm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const protocolVersion = 1

// The bounds of a task.
const (
	maxModule = 64 << 20 // bytes of a module, quality.md 2.4: as package binary has it
	maxDirs   = 256
	maxFiles  = 4096 // descriptors in one task
)

// act is what a worker is asked to do.
type act string

const (
	actRun     act = "run"     // prepare the module, unless that was done, and run it
	actPrepare act = "prepare" // prepare it and wait for the task that runs it
	actCompile act = "compile" // prepare it, leave code and metered module in Scratch, and end
)

// task is what a worker is told.
type task struct {
	Version int `json:"version"`
	Act     act `json:"act"`

	// The module: so many bytes follow as frames, unless Cached names files, or it has been prepared.
	Size   int64   `json:"size,omitempty"`
	Cached *cached `json:"cached,omitempty"`

	Memory    int64  `json:"memory,omitempty"` // runner.Module.Memory
	Interpret bool   `json:"interpret,omitempty"`
	Extension string `json:"extension,omitempty"` // name of the one that takes part
	Extra     int64  `json:"extra,omitempty"`     // bytes for it, which follow the module as frames
	Space     int64  `json:"space,omitempty"`     // bytes that the process may use, so that it fails before the host does; zero: any number
	Serial    bool   `json:"serial,omitempty"`    // of actPrepare: run it for one task after the other, until nothing more is sent
	Scratch   string `json:"scratch,omitempty"`   // writable directory: for what actCompile makes, and for the link to cached code

	Args    []string   `json:"args,omitempty"`
	Env     []string   `json:"env,omitempty"`
	Entry   string     `json:"entry,omitempty"`
	Clock   *time.Time `json:"clock,omitempty"`
	Seed    []byte     `json:"seed,omitempty"`
	Gas     uint64     `json:"gas,omitempty"`
	Dirs    []taskDir  `json:"dirs,omitempty"`
	Room    int64      `json:"room,omitempty"`    // bytes that a directory in memory may grow to
	Frames  bool       `json:"frames,omitempty"`  // stdout and stderr go out as frames, not by descriptors 1 and 2
	Outputs []taskFile `json:"outputs,omitempty"` // of directories in memory, to be sent as archives in this order
}

// codeName is what wazero calls a file of code: a directory for each version and architecture, and a SHA-256.
var codeName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^wazero-[A-Za-z0-9.+-]{1,64}/[0-9a-f]{64}$`)
})

// cached says where metered module and machine code are. Empty paths: the next two descriptors.
type cached struct {
	Module string `json:"module,omitempty"`
	Code   string `json:"code,omitempty"`
	Name   string `json:"name"` // of the code, relative to wazero's cache directory
}

// taskDir is one directory of the module.
type taskDir struct {
	As       string     `json:"as"`
	Path     string     `json:"path,omitempty"` // in the worker's file system; empty: in memory, of Files
	Writable bool       `json:"writable,omitempty"`
	Files    []taskFile `json:"files,omitempty"`
}

// taskFile is one file of a directory in memory; its content is the next descriptor.
type taskFile struct {
	Dir  int    `json:"dir,omitempty"` // of an output: index of the directory
	Path string `json:"path"`
	Size int64  `json:"size,omitempty"`
	Tree bool   `json:"tree,omitempty"` // it is a directory, and has no descriptor
	Link string `json:"link,omitempty"` // it is a symbolic link with this target, and has no descriptor
}

func (t task) validate() error {
	switch {
	case t.Version != protocolVersion:
		return fmt.Errorf("version %d is not %d: worker and runner are of different releases", t.Version, protocolVersion)
	case t.Act != actRun && t.Act != actPrepare && t.Act != actCompile:
		return fmt.Errorf("unknown act %q", t.Act)
	case t.Size < 0 || t.Size > maxModule:
		return fmt.Errorf("module of %d bytes: more than %d", t.Size, maxModule)
	case t.Memory < 0 || t.Space < 0 || t.Room < 0 || t.Extra < 0 || t.Extra > maxExtra:
		return errors.New("a number is out of its range")
	case t.Seed != nil && len(t.Seed) != 32:
		return fmt.Errorf("seed of %d bytes, not 32", len(t.Seed))
	case t.Cached != nil && !codeName().MatchString(t.Cached.Name):
		return fmt.Errorf("name of code is %q", t.Cached.Name)
	case len(t.Dirs) > maxDirs:
		return fmt.Errorf("%d directories, more than %d", len(t.Dirs), maxDirs)
	case t.files() > maxFiles:
		return fmt.Errorf("%d files, more than %d", t.files(), maxFiles)
	}
	for _, o := range t.Outputs {
		if o.Dir < 0 || o.Dir >= len(t.Dirs) || t.Dirs[o.Dir].Path != "" {
			return fmt.Errorf("output %q is in no directory in memory", o.Path)
		}
	}
	return nil
}

// files counts the descriptors that come with t for its directories.
func (t task) files() int {
	n := 0
	for _, d := range t.Dirs {
		for _, f := range d.Files {
			if !f.Tree && f.Link == "" {
				n++
			}
		}
	}
	return n
}

// enforced lists what the worker puts in force, in the words of runner.Confinement.
func (t task) enforced() []string {
	list := []string{"wasm:linear-memory", "wasm:structure-check", "wasm:wasi-preview1"}
	for name, on := range map[string]bool{"wasm:fixed-clock": t.Clock != nil, "wasm:fixed-randomness": t.Seed != nil, "wasm:gas-limit": t.Gas > 0} {
		if on {
			list = append(list, name)
		}
	}
	return list
}

// phase is how far a worker is.
type phase byte

const (
	phaseNone    phase = 0
	phaseCheck   phase = 'c' // reading, checking and metering the module
	phaseCompile phase = 'm' // making machine code
	phaseReady   phase = 'y' // prepared; waiting for the task that runs it
	phaseRun     phase = 'r' // the module's own instructions
)

func (p phase) String() string {
	switch p {
	case phaseCheck:
		return "while its module was checked"
	case phaseCompile:
		return "while its module was compiled"
	case phaseReady:
		return "while it waited"
	case phaseRun:
		return "while its module ran"
	default:
		return "before it began"
	}
}

// ending classifies the end that a worker reports.
type ending string

const (
	endExit    ending = "exit"    // Exit is the module's status
	endTrap    ending = "trap"    // Detail is the trap
	endGas     ending = "gas"     // all of it is used
	endRefused ending = "refused" // Detail is what is wrong with the module
	endUnable  ending = "unable"  // Detail is why the worker cannot work here
	endMissing ending = "missing" // Detail names an output that does not exist
	endStopped ending = "stopped" // an Extension stopped it
)

// report is how a worker says that it ended. All of it is a stranger's word.
type report struct {
	Version int    `json:"version"`
	End     ending `json:"end"`
	Exit    uint32 `json:"exit,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Gas     uint64 `json:"gas,omitempty"`
	Memory  int64  `json:"memory,omitempty"` // bytes of linear memory at the end; it never shrinks
	Engine  string `json:"engine,omitempty"`

	PrepareCPU time.Duration `json:"prepareCPU,omitempty"` // nanoseconds that the worker computed, from having the task to being ready
	RunCPU     time.Duration `json:"runCPU,omitempty"`     // from being ready to the module's end, with its outputs sent
}

const (
	maxReport = 64 << 10 // bytes as JSON
	maxDetail = 4 << 10  // bytes of Detail
)

func (r report) validate() error {
	switch {
	case r.Version != protocolVersion:
		return fmt.Errorf("version %d is not %d", r.Version, protocolVersion)
	case len(r.Detail) > maxDetail || !utf8.ValidString(r.Detail):
		return errors.New("detail is too long, or not UTF-8")
	case r.Memory < 0 || r.PrepareCPU < 0 || r.RunCPU < 0:
		return errors.New("a number is negative")
	case r.Engine != "" && r.Engine != engineName(false) && r.Engine != engineName(true):
		return fmt.Errorf("unknown engine %q", r.Engine)
	}
	switch r.End {
	case endExit, endTrap, endGas, endRefused, endUnable, endMissing, endStopped:
		return nil
	default:
		return fmt.Errorf("unknown end %q", r.End)
	}
}

// parseStrict reads JSON of a known form and nothing else.
func parseStrict(data []byte, into interface{ validate() error }) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return into.validate()
}

func parseReport(data []byte) (report, error) {
	var r report
	if len(data) > maxReport {
		return r, broken("report of %d bytes, more than %d", len(data), maxReport)
	}
	if err := parseStrict(data, &r); err != nil {
		return report{}, broken("report: %v", err)
	}
	return r, nil
}

func parseTask(data []byte) (task, error) {
	var t task
	err := parseStrict(data, &t)
	return t, err
}

// cut makes one printable, short line of what came from a module's world.
func cut(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail-3], "") + "…"
}
