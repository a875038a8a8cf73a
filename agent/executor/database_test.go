package executor

import (
	"errors"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// A state of the format before this one, which has no journal, is taken over; any other is refused, and left as it is.
func TestFormats(t *testing.T) {
	dir := t.TempDir()
	reopen := func() error {
		t.Helper()
		d, err := openDatabase(dir)
		if err != nil {
			return err
		}
		return d.release()
	}
	// edit changes what the state file says of itself, and returns its format before.
	edit := func(change func(meta *bolt.Bucket) error) (was string) {
		t.Helper()
		b, err := bolt.Open(filepath.Join(dir, "state.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		err = b.Update(func(tx *bolt.Tx) error {
			meta := tx.Bucket(bucketMeta.name())
			was = string(meta.Get(keyFormat))
			return change(meta)
		})
		if err != nil {
			t.Fatal(err)
		}
		return was
	}
	if err := reopen(); err != nil {
		t.Fatal(err)
	}
	was := edit(func(meta *bolt.Bucket) error {
		if err := meta.Delete(keySalt); err != nil {
			return err
		}
		if err := meta.Put(keyLast, numberKey(7)); err != nil {
			return err
		}
		return meta.Put(keyFormat, []byte(formatBefore))
	})
	if was != format {
		t.Errorf("a new state has the format %q", was)
	}
	if err := reopen(); err != nil {
		t.Fatal(err)
	}
	was = edit(func(meta *bolt.Bucket) error {
		if got := number(meta.Get(keyLast)); got != 7 || len(meta.Get(keySalt)) == 0 {
			t.Errorf("the last number is %d, the salt %q", got, meta.Get(keySalt))
		}
		return meta.Put(keyFormat, []byte("arch node state 9\n"))
	})
	if was != format {
		t.Errorf("the format is still %q", was)
	}
	err := reopen()
	if f, ok := errors.AsType[*FormatError](err); !ok || f.Found != "arch node state 9\n" || f.Hint() == "" {
		t.Errorf("another format: %v", err)
	}
}

// That the state file cannot be written is told, though the journal keeps what it should have.
func TestUnsettled(t *testing.T) {
	d, err := openDatabase(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	d.unsettled = func(err error) {
		select {
		case told <- err:
		default:
		}
	}
	if err := d.bolt.Close(); err != nil {
		t.Fatal(err)
	}
	go d.run()
	if err := d.commit(&change{puts: []put{{bucketMeta, keyLast, numberKey(7)}}}); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err == nil {
		t.Error("it could not be written, and nobody says so")
	}
	if got, err := d.get(bucketMeta, keyLast); err != nil || number(got) != 7 {
		t.Errorf("got %d, %v", number(got), err)
	}
	close(d.stop)
	<-d.ended
	<-d.settled
	if err := d.release(); err != nil {
		t.Error(err)
	}
}
