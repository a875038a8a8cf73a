package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// Signer signs for one public key.
type Signer interface {
	// Public returns the key that verifies what Sign makes.
	Public() PublicKey
	// Sign returns the signature of message, in the form PublicKey.Verify documents.
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// secretSize is the size in bytes of every private key as we keep it: the seed of Ed25519 (RFC 8032) and of
// ML-DSA-65 (FIPS 204), and the big-endian scalar of P-256.
const secretSize = 32

// Key is a private key in memory, a Signer. All its signatures are deterministic: the same message gives the same bytes.
// Formatting it with any verb, logging it or encoding it shows its public name only.
type Key struct {
	public PublicKey
	// These are closures because no printer, however reflective, looks into one.
	secret func() []byte // returns secretSize bytes, which belong to the key
	sign   func(message []byte) ([]byte, error)
}

// Generate makes a new key of the algorithm (any but OpenPGP) from secretSize bytes that it reads from random;
// nil means crypto/rand. The same bytes give the same key.
func Generate(alg Algorithm, random io.Reader) (*Key, error) {
	if random == nil {
		random = rand.Reader
	}
	// P-256 refuses about one in 2^32 scalars; any other algorithm is content with the first.
	for range 8 {
		seed := make([]byte, secretSize)
		if _, err := io.ReadFull(random, seed); err != nil {
			return nil, fmt.Errorf("generate %s key: read randomness: %w", alg, err)
		}
		k, err := newKey(alg, seed)
		if !errors.Is(err, errScalarRange) {
			return k, err
		}
	}
	return nil, fmt.Errorf("generate %s key: the randomness is not random", alg)
}

var errScalarRange = errors.New("the private key is not between 1 and the order of P-256")

// newKey takes seed over.
func newKey(alg Algorithm, seed []byte) (*Key, error) {
	var (
		k   *Key
		err error
	)
	switch alg {
	case Ed25519:
		k, err = newEd25519(seed)
	case ECDSAP256:
		k, err = newP256(seed)
	case MLDSA65:
		k, err = newMLDSA65(seed)
	case OpenPGP:
		err = errors.New("OpenPGP keys are not made or kept here")
	default:
		err = fmt.Errorf("%q is no algorithm for private keys", shorten(string(alg)))
	}
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	k.secret = func() []byte { return seed }
	return k, nil
}

func newEd25519(seed []byte) (*Key, error) {
	private := ed25519.NewKeyFromSeed(seed)
	public, err := NewPublicKey(Ed25519, private[ed25519.SeedSize:])
	if err != nil {
		return nil, err
	}
	return &Key{public: public, sign: func(message []byte) ([]byte, error) {
		return ed25519.Sign(private, message), nil
	}}, nil
}

func newP256(scalar []byte) (*Key, error) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		return nil, errScalarRange
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	public, err := NewPublicKey(ECDSAP256, compressP256(point))
	if err != nil {
		return nil, err
	}
	return &Key{public: public, sign: func(message []byte) ([]byte, error) {
		return signP256(private, message)
	}}, nil
}

// signP256 signs as RFC 6979 says and returns r and s, 32 bytes each.
func signP256(private *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	hash := sha256.Sum256(message)
	der, err := private.Sign(nil, hash[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	sig := make([]byte, 64)
	rs.R.FillBytes(sig[:32])
	rs.S.FillBytes(sig[32:])
	return sig, nil
}

func newMLDSA65(seed []byte) (*Key, error) {
	pk, private := mldsa65.NewKeyFromSeed((*[mldsa65.SeedSize]byte)(seed))
	public, err := NewPublicKey(MLDSA65, pk.Bytes())
	if err != nil {
		return nil, err
	}
	return &Key{public: public, sign: func(message []byte) ([]byte, error) {
		sig := make([]byte, mldsa65.SignatureSize)
		err := mldsa65.SignTo(private, message, nil, false, sig)
		return sig, err
	}}, nil
}

// NewPublicKey returns the key with these bytes, as did:key has them: 32 for Ed25519 (RFC 8032 section 5.1.5), 33 for P-256 (SEC 1, compressed),
// 1,952 for ML-DSA-65 (FIPS 204). It refuses the same keys as ParsePublicKey.
func NewPublicKey(alg Algorithm, key []byte) (PublicKey, error) {
	for _, t := range keyTypes() {
		if t.algorithm == alg {
			return t.publicKey(key)
		}
	}
	return PublicKey{}, fmt.Errorf("%s has no did:key", alg)
}

// Public returns the key that verifies.
func (k *Key) Public() PublicKey { return k.public }

// Sign returns the signature of message.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sig, err := k.sign(message)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", k.public.Short(), err)
	}
	return sig, nil
}

// String names the public key.
func (k Key) String() string { return "private key of " + k.public.Short() }

// GoString names the public key.
func (k Key) GoString() string { return k.String() }

// Format names the public key, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// LogValue names the public key.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText names the public key, for any encoder that asks.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
