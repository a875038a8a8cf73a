;; guix repl -L guix node.scm PACKAGE CERTIFICATES: builds what a Guix System would run a node with, the programs being those in the directory PACKAGE, and
;; prints it: one "KEY<tab>VALUE…" a line.
(load "debian.scm")
(use-modules (arch services) (gnu services) (gnu services shepherd) (gnu system shadow) (guix derivations) (guix gexp) (guix monads) (guix store)
             (srfi srfi-1) (ice-9 match))

;; What only the bootstrap could bring: the Guile that runs and builds scripts, and the certificates.
(match (command-line)
  ((_ package certificates)
   (module-set! (resolve-module '(gnu packages guile)) 'guile-3.0 debian-guile)
   (module-set! (resolve-module '(gnu packages commencement)) 'guile-final debian-guile)
   (module-set! (resolve-module '(gnu packages nss)) 'nss-certs (local-file certificates "certificates" #:recursive? #t))

   (let* ((config (arch-node-configuration
                   (package (local-file package "arch" #:recursive? #t))
                   (listen '("127.0.0.1:7340"))))
          (extend (lambda (type)
                    ((service-extension-compute
                      (find (lambda (e) (eq? type (service-extension-target e))) (service-type-extensions arch-node-service-type)))
                     config))))
     (for-each (match-lambda
                 ((? user-account? a)
                  (format #t "account\t~a\t~a\t~a~%" (user-account-name a) (user-account-group a) (user-account-home-directory a)))
                 (_ #f))
               (extend account-service-type))
     (with-store store
       (set-build-options store #:use-substitutes? #f #:print-build-trace #f)
       (run-with-store store
         (mlet* %store-monad ((activation (lower-object (scheme-file "activation.scm" (extend activation-service-type))))
                              (services (mapm %store-monad (compose lower-object shepherd-service-file) (extend shepherd-root-service-type)))
                              (_ (built-derivations (cons activation services))))
           (format #t "activation\t~a~%" (derivation->output-path activation))
           (for-each (lambda (s) (format #t "service\t~a~%" (derivation->output-path s))) services)
           (return #t))
         #:system "x86_64-linux"
         #:guile-for-build (run-with-store store (lower-object debian-guile "x86_64-linux") #:system "x86_64-linux"))))))
