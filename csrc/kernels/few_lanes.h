// The first four lanes of a pack as numbers of their own, all further ones zero. Included after simd.h.
//
// For a chain of operations on few values: none waits for a move between lanes.

template <class T>
struct FewLanes {
  static constexpr int kCount = 4;
  T lane[kCount];
};

template <class T>
GDCORE_INLINE void read(FewLanes<T>& to, const T* from) {
  for (int i = 0; i < FewLanes<T>::kCount; ++i) to.lane[i] = from[i];
}
template <class T>
GDCORE_INLINE void read(Pack<T>& to, const T* from) {
  to = load(from);
}

template <class T>
GDCORE_INLINE FewLanes<T> like(const FewLanes<T>&, T value) {
  FewLanes<T> v;
  for (T& lane : v.lane) lane = value;
  return v;
}

template <class T>
GDCORE_INLINE FewLanes<T> fma(const FewLanes<T>& a, const FewLanes<T>& b, const FewLanes<T>& c) {
  FewLanes<T> v;
  for (int i = 0; i < FewLanes<T>::kCount; ++i) v.lane[i] = fma(a.lane[i], b.lane[i], c.lane[i]);
  return v;
}

template <class T>
GDCORE_INLINE FewLanes<T> operator+(const FewLanes<T>& a, const FewLanes<T>& b) {
  FewLanes<T> v;
  for (int i = 0; i < FewLanes<T>::kCount; ++i) v.lane[i] = a.lane[i] + b.lane[i];
  return v;
}

template <class T>
GDCORE_INLINE FewLanes<T> operator-(const FewLanes<T>& a, const FewLanes<T>& b) {
  FewLanes<T> v;
  for (int i = 0; i < FewLanes<T>::kCount; ++i) v.lane[i] = a.lane[i] - b.lane[i];
  return v;
}

template <class T>
GDCORE_INLINE FewLanes<T> operator*(const FewLanes<T>& a, const FewLanes<T>& b) {
  FewLanes<T> v;
  for (int i = 0; i < FewLanes<T>::kCount; ++i) v.lane[i] = a.lane[i] * b.lane[i];
  return v;
}

template <class T>
GDCORE_INLINE FewLanes<T> keep_first(const FewLanes<T>& a, Index count) {
  FewLanes<T> v;
  for (int i = 0; i < FewLanes<T>::kCount; ++i) v.lane[i] = i < count ? a.lane[i] : T(0);
  return v;
}

template <class T>
GDCORE_INLINE double total(const FewLanes<T>& a) {
  return (static_cast<double>(a.lane[0]) + static_cast<double>(a.lane[2])) +
         (static_cast<double>(a.lane[1]) + static_cast<double>(a.lane[3]));
}
