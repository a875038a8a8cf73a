package ledger_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"arch.network/attest/ledger"

	"github.com/google/go-cmp/cmp"
)

func TestOpen(t *testing.T) {
	const origin = "log.example/test"
	c := newLog(t, 5).checkpoint(t, 5)
	ed, pq := ed25519Key(t, origin, 'a'), mldsaKey(t, origin)
	w1, w2, w3 := witnessKey(t, "w1.example", 'b'), witnessKey(t, "w2.example", 'c'), mldsaKey(t, "w3.example")
	stranger := ed25519Key(t, "stranger.example", 'd')
	forged := ed25519Key(t, origin, 'e')
	both := []string{"log " + ed.vkey, "log " + pq.vkey}
	witnesses := []string{"witness one " + w1.vkey + " https://w1.example/", "witness two " + w2.vkey, "witness three " + w3.vkey}
	with := func(lines ...string) *ledger.Policy {
		return policy(t, append(append(append([]string{}, both...), witnesses...), lines...)...)
	}
	twoOfThree := with("group most 2 one two three", "quorum most")
	tests := []struct {
		name      string
		policy    *ledger.Policy
		signed    []byte
		witnesses []string
		err       string
	}{
		{"both keys of the log", with("quorum none"), sign(t, c, ed, pq), nil, ""},
		{"the post-quantum signature left out", with("quorum none"), sign(t, c, ed), nil, "did not sign with its key of type 0x06"},
		{"the classical signature left out", with("quorum none"), sign(t, c, pq), nil, "did not sign with its key of type 0x01"},
		{"a log with one key", policy(t, "log "+ed.vkey, "quorum none"), sign(t, c, ed, pq), nil, ""},
		{"two of three witnesses", twoOfThree, sign(t, c, ed, pq, w1, w3), []string{"one", "three"}, ""},
		{"one of three witnesses", twoOfThree, sign(t, c, ed, pq, w2), []string{"two"}, "only two cosigned"},
		{"no witness", twoOfThree, sign(t, c, ed, pq), nil, "no witness of the policy"},
		{"a group of groups", with("group a any one two", "group b all a three", "quorum b"), sign(t, c, ed, pq, w2, w3), []string{"three", "two"}, ""},
		{"a group of groups, one short", with("group a any one two", "group b all a three", "quorum b"), sign(t, c, ed, pq, w1, w2), nil, "not the quorum"},
		{"a witness as quorum", with("quorum one"), sign(t, c, ed, pq, w1), []string{"one"}, ""},
		{"strangers are ignored", with("quorum none"), sign(t, c, ed, pq, stranger), nil, ""},
		{"only a stranger", with("quorum none"), sign(t, c, stranger), nil, "no key that the policy has"},
		{"another key under the log's name", with("quorum none"), sign(t, c, forged), nil, "no key that the policy has"},
		{"another log", with("quorum none"), sign(t, ledger.Checkpoint{Origin: "other.example", Size: 5, Root: c.Root}, ed, pq), nil, `no log "other.example"`},
		{"a signature of a known key that is wrong", with("quorum none"), flip(t, sign(t, c, ed, pq, w1), "w1.example"), nil, "invalid signature"},
		{"another size", with("quorum none"), bytes.Replace(sign(t, c, ed, pq), []byte("\n5\n"), []byte("\n6\n"), 1), nil, "invalid signature"},
		{"a size with a leading zero", with("quorum none"), signText(t, strings.Replace(c.String(), "\n5\n", "\n05\n", 1), ed), nil, `"05" is no tree size`},
		{"no root", with("quorum none"), signText(t, origin+"\n5\n", ed), nil, "fewer than three lines"},
		{"a root of 31 bytes", with("quorum none"), signText(t, origin+"\n5\n"+base64.StdEncoding.EncodeToString(make([]byte, 31))+"\n", ed), nil, "no root hash"},
		{"an empty log with a root", with("quorum none"), signText(t, strings.Replace(c.String(), "\n5\n", "\n0\n", 1), ed), nil, "an empty log"},
		{"an extension line", policy(t, "log "+ed.vkey, "quorum none"), signText(t, c.String()+"extension\n", ed), nil, ""},
		{"over the size limit", with("quorum none"), append(sign(t, c, ed, pq), make([]byte, ledger.MaxNote)...), nil, "over the limit"},
		{"nothing", with("quorum none"), nil, nil, `no log ""`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.policy.Open(tt.signed)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, got.Checkpoint); diff != "" {
				t.Errorf("checkpoint (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.witnesses, got.Witnesses); diff != "" {
				t.Errorf("witnesses (-want +got):\n%s", diff)
			}
			if timed := len(tt.witnesses) > 0; timed != (time.Since(got.Newest) < time.Hour) {
				t.Errorf("newest cosignature: %v", got.Newest)
			}
		})
	}
}

// flip changes a bit in the last byte of the signature by name.
func flip(t *testing.T, signed []byte, name string) []byte {
	t.Helper()
	lines := strings.SplitAfter(string(signed), "\n")
	for i, line := range lines {
		head, sig, ok := strings.Cut(strings.TrimSpace(line), name+" ")
		if !ok {
			continue
		}
		data, err := base64.StdEncoding.DecodeString(sig)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 1
		lines[i] = head + name + " " + base64.StdEncoding.EncodeToString(data) + "\n"
		return []byte(strings.Join(lines, ""))
	}
	t.Fatalf("no signature by %s", name)
	return nil
}

func TestQuorumErrorHints(t *testing.T) {
	log, w := ed25519Key(t, "log.example/test", 'a'), witnessKey(t, "w.example", 'b')
	p := policy(t, "log "+log.vkey, "witness w "+w.vkey, "quorum w")
	_, err := p.Open(sign(t, newLog(t, 1).checkpoint(t, 1), log))
	quorum, ok := errors.AsType[*ledger.QuorumError](err)
	if !ok || quorum.Hint() == "" {
		t.Errorf("error %v", err)
	}
}

func TestParsePolicyRefuses(t *testing.T) {
	log, w := ed25519Key(t, "log.example/test", 'a'), witnessKey(t, "w.example", 'b')
	other := ed25519Key(t, "other.example", 'a') // the log's key under another name
	small := "bad.example+00000000+" + base64.StdEncoding.EncodeToString(append([]byte{1, 1}, make([]byte, 31)...))
	tests := []struct{ name, text, err string }{
		{"nothing", "", "names no log"},
		{"no quorum", "log " + log.vkey, "no quorum line"},
		{"an unknown word", "log " + log.vkey + "\nlogs x", `line 2: "logs" is not`},
		{"a log without key", "log", "line 1: want `log"},
		{"a key that is none", "log nonsense", "not NAME+HASH+KEY"},
		{"a key of small order", "log " + small, "line 1"},
		{"one key twice", "log " + log.vkey + "\nlog " + log.vkey, "line 2: the public key stands in line 1"},
		{"one key under two names", "log " + log.vkey + "\nlog " + other.vkey, "stands in line 1"},
		{"a log as its own witness", "log " + log.vkey + "\nwitness me " + other.vkey, "stands in line 1"},
		{"a name twice", "log " + log.vkey + "\nwitness w " + w.vkey + "\ngroup w any w w", "listed twice"},
		{"a name that is taken", "log " + log.vkey + "\nwitness w " + w.vkey + "\ngroup w any w", "is taken"},
		{"a name of the format", "log " + log.vkey + "\nwitness none " + w.vkey, "word of the format"},
		{"a member that comes later", "log " + log.vkey + "\ngroup g any w\nwitness w " + w.vkey, "not defined above"},
		{"a threshold of nothing", "log " + log.vkey + "\nwitness w " + w.vkey + "\ngroup g 0 w", "threshold"},
		{"a threshold of too many", "log " + log.vkey + "\nwitness w " + w.vkey + "\ngroup g 2 w", "threshold"},
		{"an empty group", "log " + log.vkey + "\ngroup g any", "want `group"},
		{"an unknown quorum", "log " + log.vkey + "\nquorum w", "not defined above"},
		{"two quorums", "log " + log.vkey + "\nquorum none\nquorum none", "a quorum line above"},
		{"too long", strings.Repeat("#", ledger.MaxPolicy+1), "over the limit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ledger.ParsePolicy([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestPolicyTells(t *testing.T) {
	log, w := ed25519Key(t, "log.example/test", 'a'), witnessKey(t, "w.example", 'b')
	p := policy(t, "# a comment", "log "+log.vkey+" https://log.example/", "witness w "+w.vkey+" https://w.example/ # another", "quorum w")
	if diff := cmp.Diff([]string{"log.example/test"}, p.Origins()); diff != "" {
		t.Errorf("origins (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]ledger.Witness{{Name: "w", URL: "https://w.example/"}}, p.Witnesses()); diff != "" {
		t.Errorf("witnesses (-want +got):\n%s", diff)
	}
}

func FuzzOpen(f *testing.F) {
	log, w := ed25519Key(f, "log.example/test", 'a'), witnessKey(f, "w.example", 'b')
	p := policy(f, "log "+log.vkey, "witness w "+w.vkey, "quorum none")
	l := newLog(f, 3)
	good := sign(f, l.checkpoint(f, 3), log)
	f.Add(good)
	f.Add(sign(f, l.checkpoint(f, 0), log, w))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := p.Open(data)
		if err == nil && !strings.HasPrefix(string(data), s.String()) {
			t.Errorf("%q is read as %q", data, s.String())
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	log, w := ed25519Key(f, "log.example/test", 'a'), witnessKey(f, "w.example", 'b')
	f.Add([]byte("log " + log.vkey + "\nwitness w " + w.vkey + "\ngroup g 1 w\nquorum g\n"))
	f.Add([]byte("quorum none"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := ledger.ParsePolicy(data); err == nil && len(p.Origins()) == 0 {
			t.Error("a policy without a log")
		}
	})
}
