package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"arch.network/attest/digest"
	"arch.network/runner/gas"
	"arch.network/runner/wasm"
	"arch.network/runner/wasm/wasi"
)

// ExtensionName names the Extension in tasks and cache keys.
const ExtensionName = "checkpoint 2, " + gas.Version

// Extension is what a worker of package wasm needs to take part in Run: wasm.Main(os.Args, checkpoint.Extension()).
// It serves one run: a worker has no more.
func Extension() wasm.Extension {
	var m *machine
	return wasm.Extension{
		Name:    ExtensionName,
		Prepare: prepare,
		Hook:    func(*wasm.Instance) { m.hook() },
		Run: func(in *wasm.Instance) error {
			var err error
			if m, err = begin(in); err != nil {
				return tell(in, err)
			}
			return report(in, m, m.run())
		},
	}
}

// prepare returns a prepared module as it is, and makes every other ask for gas.
func prepare(module []byte) ([]byte, error) {
	prepared, err := IsPrepared(module)
	if err != nil || prepared {
		return module, err
	}
	counted, err := gas.Instrument(module, gas.Options{Hook: true, CanonicalNaN: true})
	if err != nil {
		return nil, err
	}
	return counted.Module, nil
}

func begin(in *wasm.Instance) (*machine, error) {
	r, from, err := parseRequest(in.Extra())
	if err != nil {
		return nil, err
	}
	return newMachine(adapter{in}, r, from, in.Gas(), in.Asked)
}

// What a worker sends starts with one of these bytes.
const (
	saysStopped = 'c' // followed by an encoded Checkpoint
	saysFailed  = 'e' // followed by why the run could not be resumed
)

// report sends the checkpoint of a run that was stopped.
func report(in *wasm.Instance, m *machine, err error) error {
	if known, ok := errors.AsType[*resumeError](err); ok {
		return tell(in, known)
	}
	if !errors.Is(err, wasm.ErrStopped) {
		return err
	}
	for _, part := range [][]byte{{saysStopped}, m.stopped.Marshal()} {
		if _, err := in.Write(part); err != nil {
			return err
		}
	}
	return wasm.ErrStopped
}

// tell sends why a run could not be resumed.
func tell(in *wasm.Instance, err error) error {
	if _, err := in.Write(append([]byte{saysFailed}, err.Error()...)); err != nil {
		return err
	}
	return err
}

// adapter makes an Instance of package wasm one of ours.
type adapter struct{ *wasm.Instance }

func (a adapter) wasiState() ([]byte, error) {
	st, err := a.WASI().State()
	if err != nil {
		return nil, err
	}
	return st.Marshal()
}

func (a adapter) restoreWASI(state []byte) error {
	st, err := wasi.ParseState(state)
	if err != nil {
		return err
	}
	return a.RestoreWASI(st)
}

func (adapter) files(dirs []string) ([]Files, error) { return takeFiles(dirs) }
func (adapter) restoreFiles(files []Files) error     { return putFiles(files) }

// request is what Run tells the worker; an encoded Checkpoint may follow.
type request struct {
	Version       int           `json:"version"` // 2
	Module        digest.SHA256 `json:"module"`  // Checkpoint.Module
	Slice         uint64        `json:"slice"`
	Stop          uint64        `json:"stop,omitempty"`
	Entry         string        `json:"entry"`
	Deterministic bool          `json:"deterministic,omitempty"` // clock and randomness are not the host's
	// Dirs are the directories that the module may write to and that end with the confinement, rising.
	Dirs []string `json:"dirs,omitempty"`
}

func (r request) marshal() ([]byte, error) {
	head, err := json.Marshal(r)
	return appendSized(nil, head), err
}

const maxRequest = 1 << 16

func parseRequest(data []byte) (r request, from *Checkpoint, err error) {
	if len(data) < 4 || binary.LittleEndian.Uint32(data) > min(maxRequest, uint32(len(data)-4)) {
		return r, nil, errors.New("parse request for checkpoints: it is cut short")
	}
	n := 4 + binary.LittleEndian.Uint32(data)
	if err := json.Unmarshal(data[4:n], &r); err != nil {
		return r, nil, fmt.Errorf("parse request for checkpoints: %w", err)
	}
	if r.Version != 2 || r.Slice == 0 || r.Entry == "" {
		return r, nil, fmt.Errorf("parse request for checkpoints: version %d, slice %d, entry %q", r.Version, r.Slice, r.Entry)
	}
	if data = data[n:]; len(data) > 0 {
		from, err = parse(data)
	}
	return r, from, err
}
