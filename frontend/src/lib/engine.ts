/** Plays decoded clips through Web Audio, one at a time, with short equal-power fades at every start and stop. */

const FADE_SECONDS = 0.02;
const POINTS = 33;
const rise = Float32Array.from({ length: POINTS }, (_, i) => Math.sin(((i / (POINTS - 1)) * Math.PI) / 2));
const fall = Float32Array.from(rise).reverse();

/** A clip that sounds now. */
export interface Voice {
  /** Seconds from the start of the clip. */
  position(): number;
  /** Fades out and ends; `ended` is not called. */
  stop(): void;
}

/** Decodes a clip without asking for an audible context, which browsers allow only after a gesture. */
export async function decode(data: ArrayBuffer): Promise<AudioBuffer> {
  return new OfflineAudioContext(1, 1, 48_000).decodeAudioData(data);
}

export class Engine {
  #context: AudioContext | undefined;

  /**
   * Starts a clip. Call it from a user's gesture: the first call makes the audio context.
   *
   * @param buffer the decoded clip
   * @param offset seconds from its start
   * @param ended called when the clip has sounded to its end, or when the system took the sound away
   * @throws if the browser gives no sound
   */
  async play(buffer: AudioBuffer, offset: number, ended: (finished: boolean) => void): Promise<Voice> {
    const context = await this.#running();
    const source = new AudioBufferSourceNode(context, { buffer });
    // Rise and fall have a node each, so that a stop within the first 20 ms does not meet a running curve.
    const entry = new GainNode(context);
    const exit = new GainNode(context);
    source.connect(entry).connect(exit).connect(context.destination);

    const began = context.currentTime;
    const position = () => Math.min(offset + Math.max(0, context.currentTime - began), buffer.duration);
    let over = false;
    const finish = (finished: boolean) => {
      if (over) return;
      over = true;
      context.removeEventListener('statechange', interrupted);
      ended(finished);
    };
    // A phone call or the lock screen moves the context to "interrupted" (Safari) or "suspended".
    const interrupted = () => {
      if (context.state === 'running') return;
      finish(false);
      source.stop();
    };
    context.addEventListener('statechange', interrupted);
    source.onended = () => finish(true);
    entry.gain.setValueCurveAtTime(rise, began, FADE_SECONDS);
    source.start(began, offset);

    return {
      position,
      stop() {
        if (over) return;
        over = true;
        context.removeEventListener('statechange', interrupted);
        exit.gain.setValueCurveAtTime(fall, context.currentTime, FADE_SECONDS);
        source.stop(context.currentTime + FADE_SECONDS);
      },
    };
  }

  async #running(): Promise<AudioContext> {
    if (this.#context && this.#context.state !== 'running') {
      await withTimeout(this.#context.resume());
      // A context that stays interrupted after the gesture never recovers on iOS; a new one does.
      if (!isRunning(this.#context)) {
        void this.#context.close().catch(() => undefined);
        this.#context = undefined;
      }
    }
    this.#context ??= new AudioContext({ latencyHint: 'interactive' });
    if (!isRunning(this.#context)) await withTimeout(this.#context.resume());
    if (!isRunning(this.#context)) throw new Error('no sound');
    return this.#context;
  }
}

/** Asked through a function because the state changes while we wait, which the type checker does not know. */
function isRunning(context: AudioContext): boolean {
  return context.state === 'running';
}

/** Waits for a promise at most a second; `resume()` may never settle while the system holds the sound. */
function withTimeout(promise: Promise<void>): Promise<void> {
  return Promise.race([promise.catch(() => undefined), new Promise<void>((done) => setTimeout(done, 1000))]);
}
